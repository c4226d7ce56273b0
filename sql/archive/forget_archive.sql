-- Features that looked back to archived bars are stale, that is all of them.
UPDATE symbol_state SET
    archived_before = NULL,
    stale_from = (SELECT min(timestamp) FROM market_data WHERE symbol = %(symbol)s AND is_final)
WHERE symbol = %(symbol)s AND archived_before IS NOT NULL
