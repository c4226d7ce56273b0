"""What the command line does with alerts: list them, and send samples."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from include.mltrading.alerts import smtp
from include.mltrading.alerts.render import compose
from include.mltrading.alerts.samples import samples
from include.mltrading.configuration.deployments import load_deployments
from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.store.connection import connect
from include.mltrading.store.migrations import require_current_schema
from include.mltrading.store.queries import query

_SENDER = "mltrading@localhost"


def addressees(settings: Settings) -> list[str]:
    """Who gets the mails."""
    return load_deployments(settings.deployments_file).alerts.addressees


def listed(settings: Settings, since: timedelta) -> list[dict[str, Any]]:
    """The alerts that are open, or whose mail is due, or that were opened in that time; the oldest first."""
    with connect(settings) as connection:
        require_current_schema(connection)
        cursor = connection.execute(query("alerts/list_alerts"), {"since": since})
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def send_samples(settings: Settings) -> list[str]:
    """Send one mail of each kind; their subjects.

    Through MLTRADING_SMTP_URL, or else, where Airflow is configured, through its connection smtp_default.
    Raises UsageError when there is neither, MLTradingError when the server does not take them.
    """
    # Airflow's connection names the sender itself.
    sender = _SENDER if settings.smtp_url else ""
    mails = [compose(sample, addressees(settings), sender) for sample in samples()]
    if settings.smtp_url:
        smtp.send(settings.smtp_url, mails)
    elif importlib.util.find_spec("airflow") and any(name.startswith("AIRFLOW") for name in os.environ):
        _send_through_airflow(mails)
    else:
        raise UsageError(
            "no mail server: set MLTRADING_SMTP_URL (smtp://host:25), or run this where Airflow is "
            "configured (make shell), which has the connection smtp_default"
        )
    return [str(mail["Subject"]) for mail in mails]


def _send_through_airflow(mails: Sequence[EmailMessage]) -> None:
    """In a process of its own: nothing outside its folder imports Airflow."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, mail in enumerate(mails):
            file = Path(folder, f"{number}.eml")
            file.write_bytes(mail.as_bytes())
            files.append(str(file))
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "include.mltrading.airflow.mail", *files],
            cwd=PROJECT_ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        words = (done.stderr.strip() or "no output").splitlines()
        raise MLTradingError(words[-1].removeprefix("error: "))
