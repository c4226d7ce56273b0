-- A session without a crumb is one that the vendor gave none for: asked for again after an hour.
SELECT cookies, crumb, obtained_at FROM vendor_session
WHERE server = %(server)s AND (
    crumb IS NOT NULL OR obtained_at > clock_timestamp() - interval '1 hour'
) AND obtained_at IS NOT NULL
