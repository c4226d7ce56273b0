"""What is wrong with the machine and the database: time-outs, connections, memory, disks."""

from __future__ import annotations

from include.mltrading.alerts.store import Alert, Details, Item
from include.mltrading.configuration.deployments import Deployments
from include.mltrading.monitor import machine as measured
from include.mltrading.pipeline.run import Run
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query


def timeouts(deployments: Deployments, run: Run, step: str, slow: list[str], total: int) -> Alert | None:
    """More of a run's symbols than tolerated ran into the time limit."""
    if not total or len(slow) / total <= deployments.alerts.thresholds.timeouts_share:
        return None
    details = Details(
        "Look at the machine's load and at the database's; raise MLTRADING_SYMBOL_SECONDS only when both "
        "are well.",
        [("Run", run.run_id), ("Too slow", f"{len(slow)} of {total}"),
         ("Tolerated", f"{deployments.alerts.thresholds.timeouts_share:.0%}")],
        "Symbols", [Item(symbol) for symbol in slow], slow,
    )  # fmt: skip
    return Alert(
        f"timeouts_high:{step}", "timeouts_high",
        f"{len(slow)} of {total} symbols took too long ({step})", details, run.dag_id, run.run_id,
    )  # fmt: skip


def connections(connection: Connection, deployments: Deployments) -> Alert | None:
    """The role uses more of its connections than tolerated."""
    row = connection.execute(query("alerts/own_connections")).fetchone()
    share = deployments.alerts.thresholds.connections_share
    if row is None or row[0] <= share * row[1]:
        return None
    used, limit = row
    details = Details(
        "See who holds them: `SELECT pid, application_name, state, query FROM pg_stat_activity`; end what is "
        "idle, or raise the role's CONNECTION LIMIT.",
        [("In use", f"{used} of {limit}"), ("Tolerated", f"{share:.0%}")],
    )
    return Alert(
        "connections_high", "connections_high", f"{used} of {limit} database connections are in use", details
    )


def memory(deployments: Deployments, machine: str) -> Alert | None:
    """The machine has less free memory than it should."""
    share, found = deployments.alerts.thresholds.memory_free_share, measured.memory()
    if found.free >= share * found.total:
        return None
    free = f"{found.free / found.total:.0%}"
    details = Details(
        "See what uses it: `ps aux --sort=-rss | head`. Fewer tasks at a time (the pools) need less.",
        [("Free", f"{found.free / 1e9:.1f} of {found.total / 1e9:.1f} GB ({free})"),
         ("Needed", f"{share:.0%}"), ("Machine", machine)],
    )  # fmt: skip
    return Alert(f"memory_low:{machine}", "memory_low", f"{free} of memory free on {machine}", details)


def disks(deployments: Deployments, machine: str) -> Alert | None:
    """Of the disks that the product writes to, those that are nearly full."""
    share = deployments.alerts.thresholds.disk_free_share
    full = [disk for disk in measured.disks() if disk.free < share * disk.total]
    if not full:
        return None
    details = Details(
        "Delete old task logs and old backups, or enlarge the disk, before writing stops.",
        [("Needed", f"{share:.0%} free"), ("Machine", machine)],
        "Disks",
        [Item(f"{disk.folder}: {disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB free") for disk in full],
    )  # fmt: skip
    return Alert(f"disk_low:{machine}", "disk_low", f"a disk of {machine} is nearly full", details)
