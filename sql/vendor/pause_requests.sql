-- The vendor refused: nobody sends for a while. Refusals during a pause belong to it; each further pause
-- without a good answer in between doubles.
INSERT INTO request_clock AS clock (vendor, next_slot, not_before, refusals)
VALUES (
    %(vendor)s, clock_timestamp(), clock_timestamp() + coalesce(%(asked)s::interval, %(first)s::interval), 1
)
ON CONFLICT (vendor) DO UPDATE SET
    not_before = CASE
        WHEN %(asked)s::interval IS NOT NULL
            THEN greatest(clock.not_before, clock_timestamp() + %(asked)s::interval)
        WHEN clock.not_before > clock_timestamp() THEN clock.not_before
        ELSE clock_timestamp() + least(%(longest)s::interval, %(first)s::interval * 2 ^ least(clock.refusals, 20))
    END,
    refusals = clock.refusals + (clock.not_before <= clock_timestamp())::integer
RETURNING extract(epoch FROM not_before - clock_timestamp())::float8
