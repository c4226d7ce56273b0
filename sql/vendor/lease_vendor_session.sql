-- One process obtains a session; the lock ends with its holder's database session, however that ends.
SELECT pg_try_advisory_lock(hashtextextended('mltrading:vendor_session:' || %(server)s, 0))
