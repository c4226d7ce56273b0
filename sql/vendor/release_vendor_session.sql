-- Whoever was to obtain a session has done so, or could not: the next one may look.
SELECT pg_advisory_unlock(hashtextextended('mltrading:vendor_session:' || %(server)s, 0))
