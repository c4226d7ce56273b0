-- Where a symbol's bars begin now, and from where on its features are stale.
INSERT INTO symbol_state (symbol, archived_before, feature_version, stale_from)
VALUES (%(symbol)s, %(archived_before)s, %(feature_version)s, %(stale_from)s)
ON CONFLICT (symbol) DO UPDATE SET
    archived_before = EXCLUDED.archived_before,
    feature_version = coalesce(symbol_state.feature_version, EXCLUDED.feature_version),
    stale_from = least(symbol_state.stale_from, EXCLUDED.stale_from)
