SELECT count(*) FROM quarantined_bars WHERE released_at IS NULL
