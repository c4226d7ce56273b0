-- Announce that the caller waits, or still waits; whoever has not done so for a minute is dead.
WITH clock AS (
    INSERT INTO request_clock (vendor, next_slot) VALUES (%(vendor)s, clock_timestamp()) ON CONFLICT DO NOTHING
),
dead AS (
    DELETE FROM request_queue WHERE alive_until < clock_timestamp() - interval '1 minute' AND waiter <> %(waiter)s
)
INSERT INTO request_queue (waiter, vendor, priority, alive_until)
VALUES (%(waiter)s, %(vendor)s, %(priority)s, clock_timestamp() + %(alive)s)
ON CONFLICT (waiter) DO UPDATE SET alive_until = EXCLUDED.alive_until
