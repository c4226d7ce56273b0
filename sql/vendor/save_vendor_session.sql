INSERT INTO vendor_session (server, cookies, crumb, obtained_at)
VALUES (%(server)s, %(cookies)s::jsonb, %(crumb)s, clock_timestamp())
ON CONFLICT (server) DO UPDATE SET
    cookies = EXCLUDED.cookies, crumb = EXCLUDED.crumb, obtained_at = EXCLUDED.obtained_at
