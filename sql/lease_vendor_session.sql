-- One process obtains a session; a row comes back for that one only.
INSERT INTO vendor_session AS held (server, renewing_until)
VALUES (%(server)s, clock_timestamp() + %(lease)s)
ON CONFLICT (server) DO UPDATE SET renewing_until = EXCLUDED.renewing_until
WHERE held.renewing_until <= clock_timestamp() AND (
    held.obtained_at IS NULL
    OR held.crumb IS NULL AND held.obtained_at <= clock_timestamp() - interval '1 hour'
)
RETURNING server
