-- The moment at which the caller may send its request; committed before the caller sleeps.
INSERT INTO request_clock (vendor, next_slot)
VALUES (%(vendor)s, clock_timestamp() + %(interval)s)
ON CONFLICT (vendor) DO UPDATE
    SET next_slot = greatest(request_clock.next_slot, clock_timestamp()) + %(interval)s
RETURNING extract(epoch FROM next_slot - %(interval)s - clock_timestamp())::float8
