SELECT
    stale_from, feature_version,
    (SELECT max(timestamp) FROM feature_engineered_data WHERE symbol = %(symbol)s) AS features_until,
    archived_before
FROM symbol_state WHERE symbol = %(symbol)s FOR UPDATE
