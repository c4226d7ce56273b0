SELECT count(*) FROM market_data
WHERE symbol = %(symbol)s AND timestamp >= coalesce(%(start)s::timestamptz, '-infinity') AND timestamp < %(before)s
