-- A vendor that refuses everybody does not always say 429.

ALTER TABLE request_clock ADD COLUMN denials integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN request_clock.denials IS
    'requests in a row that were answered 401, 403 or 999; three make a pause';
