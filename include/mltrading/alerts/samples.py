"""A sample of each kind of mail, so that people see before the first trouble that mails arrive and how."""

from __future__ import annotations

from datetime import UTC, datetime

from include.mltrading.alerts.store import Details, Due, Item
from include.mltrading.configuration.alert_kinds import MANNERS, Kind

_LOG = "http://localhost:8080/dags/yahoo-production-data-collection/grid?dag_run_id=sample"
_RUN = [
    ("Pipeline", "Yahoo Finance Data Collection"),
    ("Tick", "Fri 2026-01-16 12:00 New York"),
    ("Run", "scheduled__2026-01-16T16:00:00+00:00"),
]
_LINK = ("Run in Airflow", _LOG)
_SYMBOLS = [Item("AAPL", _LOG), Item("MSFT", _LOG)]

_SAMPLES: dict[Kind, tuple[str, Details]] = {
    "run_late": (
        "Yahoo Finance Data Collection, tick Fri 2026-01-16 12:00 New York: late, 12 min so far",
        Details(
            "Look at what blocks it. A hung task can be cleared in the grid: it is repeated.",
            [
                _RUN[0],
                ("Scheduled", _RUN[1][1]),
                ("Elapsed", "12 min"),
                ("Expected", "8 min, late after 12 min"),
                ("Waits for it", "Production Feature Engineering, tick Fri 2026-01-16 12:05 New York"),
                _RUN[2],
                _LINK,
            ],
            "Blocked by",
            [
                Item("AAPL (collect_symbol): running since 12:00:09 New York", _LOG),
                Item("MSFT (collect_symbol): scheduled", _LOG),
            ],
        ),
    ),
    "ticks_missed": (
        "Yahoo Finance Data Collection: 3 ticks did not run",
        Details(
            "Nothing, if the DAG was paused or Airflow was down on purpose: the next run closes the gap.",
            [_RUN[0], ("Did not run", "3 ticks: Fri 2026-01-16 10:00 New York to 12:00")],
        ),
    ),
    "tick_not_started": (
        "Yahoo Finance Data Collection, tick Fri 2026-01-16 12:00 New York: did not start",
        Details("Look for import errors on top of Airflow's DAG list.", [*_RUN[:2], ("Elapsed", "14 min")]),
    ),
    "run_failed": (
        "Yahoo Finance Data Collection, tick Fri 2026-01-16 12:00 New York: 2 of 114 symbols failed",
        Details(
            "Open the log of one; clear the failed tasks in the grid when the cause is gone. "
            f"`python -m include.mltrading check --run {_RUN[2][1]}` tells the run's story.",
            [*_RUN, _LINK, ("Symbols served", "112 of 114")],
            "Failed",
            [Item("AAPL: collect_symbol: error: Yahoo knows no such symbol", _LOG),
             Item("MSFT: collect_symbol: timeout: took longer than 570 s", _LOG)],
        ),
    ),
    "database_unreachable": (
        "the market database cannot be reached",
        Details(
            "Start the server, or correct the connection mltrading_db. The next run closes the gap.",
            [("Answer", "database 'market' at db:5432 cannot be reached: connection refused"), _RUN[2]],
        ),
    ),
    "database_refused": (
        "the market database refuses the login",
        Details(
            "Correct the connection mltrading_db; find out who changed the password or the role.",
            [("Answer", "database 'market' at db:5432 refuses the connection: authentication failed")],
        ),
    ),
    "yahoo_unreachable": (
        "Yahoo cannot be reached",
        Details("Look at the network; runs try again by themselves.",
                [("Last answer", "connection timed out"), *_RUN[1:]]),
    ),
    "data_stale": (
        "bars of 2 symbols are stale",
        Details(
            "See whether the collection is paused, runs and succeeds.",
            [("Expected by now", "the bar of Fri 2026-01-16 10:30 New York"),
             ("Tolerated", "2 hours of trading")],
            "Newest final bar, by symbol",
            [Item("AAPL: Thu 2026-01-15 15:30 New York"), Item("MSFT: Thu 2026-01-15 15:30 New York")],
        ),
    ),
    "bars_missing": (
        "3 bars of 2 symbols are missing",
        Details("Usually nothing: each run asks again.", _RUN[1:],
                "Stored of expected", [Item("AAPL 2026-01-15: 6 of 7"), Item("MSFT 2026-01-15: 5 of 7")]),
    ),
    "bars_withheld": (
        "Yahoo lacks 2 hours of 2026-01-15 for 98 symbols",
        Details("Usually nothing: runs ask again, ever more seldom, for as long as Yahoo serves them.",
                [("Session", "2026-01-15"), *_RUN[1:]],
                "Symbols without the bar, by hour",
                [Item("Thu 2026-01-15 10:30 New York: 98 of 114"),
                 Item("Thu 2026-01-15 11:30 New York: 97 of 114")]),
    ),
    "symbol_silent": (
        "AAPL: no new bar for 5 sessions: halted, delisted or renamed?",
        Details("Look at the company's news. Delisted: take it from the symbols file.",
                [("Symbol", "AAPL"), ("Newest bar", "Thu 2026-01-08 15:30 New York"), *_RUN[1:]]),
    ),
    "bars_refused": (
        "2 bars of 1 symbol refused",
        Details("Look at them with `python -m include.mltrading quarantine list`.", _RUN[1:],
                "Refused bars, by symbol", [Item("AAPL: 2")]),
    ),
    "split_applied": (
        "MSFT split 4 for 1, 1735 bars restated",
        Details("Nothing, if the split is true: history stands on the new basis.",
                [("Symbol", "MSFT"), ("Split", "4 for 1 on 2026-01-16"), ("Bars restated", "1735")]),
    ),
    "split_undecided": (
        "MMM: on which side of its split of 1.196 for 1 bars stand cannot be told",
        Details("Compare the prices around the ex-date with another source.",
                [("Symbol", "MMM"), ("Split", "1.196 for 1 on 2026-01-16")]),
    ),
    "history_differs": (
        "MSFT: Yahoo's history is not the stored one",
        Details("`python -m include.mltrading reload --symbols MSFT` loads Yahoo's, if it is right.",
                [("Symbol", "MSFT"), ("Found", "Yahoo says that it trades since 2026-01-12"), *_RUN[2:]]),
    ),
    "timeouts_high": (
        "14 of 114 symbols took too long (compute_features)",
        Details("Look at the machine's load and at the database's.", [("Tolerated", "10%")],
                "Symbols", _SYMBOLS),
    ),
    "connections_high": (
        "21 of 25 database connections are in use",
        Details("See who holds them in pg_stat_activity.", [("In use", "21 of 25"), ("Tolerated", "80%")]),
    ),
    "memory_low": (
        "6% of memory free on worker-1",
        Details("See what uses it: `ps aux --sort=-rss | head`.", [("Free", "0.5 of 8.0 GB (6%)")]),
    ),
    "disk_low": (
        "a disk of worker-1 is nearly full",
        Details("Delete old task logs and old backups, or enlarge the disk.", [("Needed", "10% free")],
                "Disks", [Item("/tmp: 0.4 of 20.0 GB free")]),  # noqa: S108 - words in a mail
    ),
    "input_refused": (
        "Yahoo Finance Data Collection: input refused",
        Details("Find out who triggered it with that input.", [*_RUN, ("Refused", "param symbols: 'x;y'")]),
    ),
    "migration_edited": (
        "an applied migration was edited",
        Details("Restore the file from the repository and find out who edited it and why.",
                [("Found", "migration 0001_initial was edited after it was applied"), *_RUN[2:]]),
    ),
    "sources_mixed": (
        "simulated and real data would have met in one database",
        Details("Correct MLTRADING_YAHOO_URL or the connection mltrading_db; nothing was written.", _RUN[2:]),
    ),
}  # fmt: skip


def samples() -> list[Due]:
    """One of each kind, and one that is over."""
    now = datetime.now(UTC)
    news = [
        Due(details, 0, kind, MANNERS[kind].severity, f"(sample) {subject}", now, None, True, None)
        for kind, (subject, details) in _SAMPLES.items()
    ]
    subject, details = _SAMPLES["data_stale"]
    over = Due(details, 0, "data_stale", "critical", f"(sample) {subject}", now, now, False, now)
    return [*news, over]
