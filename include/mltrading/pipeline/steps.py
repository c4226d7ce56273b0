"""The names under which the ledger knows the kinds of work on a symbol."""

COLLECT = "collect_symbol"
FEATURES = "compute_features"
RELOAD = "reload_symbol"
