-- Only the session that was refused: a neighbour may have obtained a new one since.
UPDATE vendor_session SET cookies = NULL, crumb = NULL, obtained_at = NULL
WHERE server = %(server)s AND obtained_at = %(obtained_at)s
