SELECT min(timestamp) FROM {staged} WHERE is_final
