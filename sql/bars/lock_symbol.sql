-- Two writers of one symbol take turns; the lock ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('mltrading:' || %(symbol)s, 0))
