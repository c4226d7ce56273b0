SELECT COUNT(*) FROM feature_engineered_data WHERE created_at >= NOW() - INTERVAL '1 day'
