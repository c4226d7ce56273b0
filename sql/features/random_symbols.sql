SELECT symbol FROM symbol_state WHERE feature_version IS NOT NULL AND stale_from IS NULL
ORDER BY random() LIMIT %(count)s
