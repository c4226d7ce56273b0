"""The alerts in the market database: opened, seen again, over, mailed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from include.mltrading.configuration.alert_kinds import MANNERS, Kind, Severity
from include.mltrading.configuration.deployments import Alerts
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query
from include.mltrading.store.text import storable


@dataclass(frozen=True)
class Item:
    """One line of a list in a mail; url: where a click leads."""

    text: str
    url: str | None = None


@dataclass(frozen=True)
class Details:
    """What a mail tells below its subject.

    next_step: what the reader should do. facts: name and value. items: a list under `heading`. facts and
    items are shown in order. symbols, runs: those that it is about; not shown by themselves.
    """

    next_step: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    heading: str = ""
    items: list[Item] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Details:
        """The details as `open_alert` stored them."""
        facts = [(name, value) for name, value in document["facts"]]
        items = [Item(**item) for item in document["items"]]
        return cls(
            document["next_step"], facts, document["heading"], items, document["symbols"], document["runs"]
        )


@dataclass(frozen=True)
class Alert:
    """Something to be told. key: at most one open alert has it. condition: shares quiet periods, "" = key."""

    key: str
    kind: Kind
    subject: str
    details: Details
    dag_id: str | None = None
    run_id: str | None = None
    condition: str = ""

    def columns(self) -> dict[str, object]:
        """The row's values."""
        return {
            "key": self.key,
            "condition": self.condition or self.key,
            "kind": self.kind,
            "severity": MANNERS[self.kind].severity,
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "subject": storable(self.subject),
            "details": Jsonb(storable(asdict(self.details))),
        }


@dataclass(frozen=True)
class Open:
    """An alert that is not over. details: as stored."""

    details: Details
    key: str
    kind: Kind
    dag_id: str | None
    run_id: str | None
    opened_at: datetime
    sent_at: datetime | None
    due_at: datetime | None

    @property
    def is_told(self) -> bool:
        """Whether it was mailed, or will be by whoever sends next."""
        return self.sent_at is not None or self.due_at is not None


@dataclass(frozen=True)
class Due:
    """An alert with a mail to be sent.

    is_news: the mail tells that it is so (still, where sent_at is given), else that it is over.
    """

    details: Details
    id: int
    kind: Kind
    severity: Severity
    subject: str
    opened_at: datetime
    resolved_at: datetime | None
    is_news: bool
    sent_at: datetime | None


_AT_ONCE = timedelta()


def open_alert(
    connection: Connection,
    alert: Alert,
    manners: Alerts,
    *,
    confirm: timedelta = _AT_ONCE,
    told: bool = False,
) -> bool:
    """Record that something is so; False when an open alert, or the same event, says that already.

    confirm: it must be seen again so much later before it is mailed. told: by another mail, so not at all.
    """
    manner = MANNERS[alert.kind]
    values = {
        **alert.columns(),
        "lasting": manner.lasting,
        "reminds": manner.reminds,
        "by_run": manner.by_run,
        "quiet": manners.quiet(alert.kind),
        "confirm": confirm,
        "told": told,
    }
    with connection.transaction():
        connection.execute(query("alerts/lock_alert"), {"key": alert.key})
        if connection.execute(query("alerts/see_alert"), values).rowcount:
            return False
        return connection.execute(query("alerts/open_alert"), values).rowcount == 1


def record_past(connection: Connection, alert: Alert, opened_at: datetime, sent_at: datetime | None) -> None:
    """Record what could not be while it lasted; sent_at: when it was mailed, None = it is to be."""
    connection.execute(
        query("alerts/record_past_alert"), {**alert.columns(), "opened_at": opened_at, "sent_at": sent_at}
    )


def resolve(connection: Connection, keys: Iterable[str], *, quietly: bool = False) -> list[str]:
    """Record that these are over; the keys of those that were open. quietly: nobody is told."""
    rows = connection.execute(query("alerts/resolve_alerts"), {"keys": list(keys), "quietly": quietly})
    return [row[0] for row in rows]


def open_alerts(connection: Connection, kinds: Sequence[Kind] | None = None) -> list[Open]:
    """The open alerts (of these kinds), the oldest first."""
    rows = connection.execute(query("alerts/open_alerts"), {"kinds": None if kinds is None else list(kinds)})
    return [Open(Details.from_json(document), *others) for document, *others in rows]


def report(connection: Connection, looked_at: Mapping[str, Alert | None], manners: Alerts) -> None:
    """Open what was found; looked_at: key -> its alert, None = nothing is wrong there (any more)."""
    for alert in looked_at.values():
        if alert is not None:
            open_alert(connection, alert, manners)
    resolve(connection, [key for key, alert in looked_at.items() if alert is None])


def database_was_blamed(connection: Connection, run_id: str) -> bool:
    """Whether a mail about the database has named the run."""
    return connection.execute(query("alerts/run_told_of_database"), {"run_id": run_id}).fetchone() == (True,)


def claim_mail(connection: Connection) -> Due | None:
    """Take the next alert whose mail is to be sent; None when there is none."""
    row = connection.execute(query("alerts/claim_mail")).fetchone()
    if row is None:
        return None
    document, *others = row
    return Due(Details.from_json(document), *others)


def mail_sent(connection: Connection, due: Due) -> None:
    """The mail server took the mail."""
    connection.execute(query("alerts/mail_sent"), {"id": due.id})


def mail_not_sent(connection: Connection, due: Due, pause: float) -> None:
    """The mail server did not; who sends after the pause (seconds), this one or another, tries again."""
    connection.execute(query("alerts/mail_not_sent"), {"id": due.id, "pause": timedelta(seconds=pause)})
