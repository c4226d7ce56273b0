-- For this transaction: names without a schema mean this one.
SELECT set_config('search_path', quote_ident(%(schema)s), true)
