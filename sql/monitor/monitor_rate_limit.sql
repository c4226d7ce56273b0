-- Per vendor: nobody asks before, pauses in a row, and who waits for a turn now.
SELECT vendor, nullif(not_before, '-infinity'), refusals, (
    SELECT count(*) FROM request_queue
    WHERE request_queue.vendor = request_clock.vendor AND alive_until > clock_timestamp()
)
FROM request_clock
ORDER BY vendor
