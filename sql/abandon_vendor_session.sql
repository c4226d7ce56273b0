-- Whoever was to obtain a session could not: the next one tries.
UPDATE vendor_session SET renewing_until = '-infinity' WHERE server = %(server)s
