-- The vendor denied a request, as it does to everybody or to one symbol: how often in a row by now.
INSERT INTO request_clock AS clock (vendor, next_slot, denials) VALUES (%(vendor)s, clock_timestamp(), 1)
ON CONFLICT (vendor) DO UPDATE SET denials = clock.denials + 1
RETURNING denials
