UPDATE symbol_state SET stale_from = NULL, feature_version = %(feature_version)s WHERE symbol = %(symbol)s
