-- Take the next slot if it comes soon and nobody goes before the caller. One row: the seconds until the slot
-- that was taken (null: none was), and until the next one as it stood before.
WITH taken AS (
    UPDATE request_clock AS clock
    SET next_slot = greatest(clock.next_slot, clock.not_before, clock_timestamp()) + %(interval)s
    WHERE clock.vendor = %(vendor)s
        AND greatest(clock.next_slot, clock.not_before) <= clock_timestamp() + %(lookahead)s
        AND NOT EXISTS (
            SELECT FROM request_queue AS mine
            JOIN request_queue AS other
                ON other.vendor = mine.vendor
                AND (other.priority, other.since, other.waiter) < (mine.priority, mine.since, mine.waiter)
            WHERE mine.waiter = %(waiter)s AND other.alive_until > clock_timestamp()
        )
    RETURNING clock.next_slot - %(interval)s AS slot
)
SELECT
    (SELECT extract(epoch FROM slot - clock_timestamp()) FROM taken)::float8,
    extract(epoch FROM greatest(next_slot, not_before) - clock_timestamp())::float8
FROM request_clock WHERE vendor = %(vendor)s
