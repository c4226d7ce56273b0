-- Who tells of the same thing at the same time takes turns, until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('mltrading:alert:' || %(key)s, 0))
