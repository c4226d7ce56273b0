"""The names under which the ledger knows the two kinds of work on a symbol."""

COLLECT = "collect_symbol"
FEATURES = "compute_features"
