"""Sending the mails that are due."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from include.mltrading.configuration.deployments import Deployments
from include.mltrading.errors import MLTradingError

if TYPE_CHECKING:
    from include.mltrading.store.connection import Connection

# A callback has 50 s for everything.
_MOST_SECONDS = 20.0
# A mail server that hangs is left alone for so many times the time that it took.
_PATIENCE = 10

log = logging.getLogger(__name__)


def deliver(connection: Connection, deployments: Deployments) -> int:
    """Send every mail that is due; the number sent. What cannot be sent stays due for the next run."""
    from include.mltrading.airflow.mail import MailRefusedError, MailServerError, mail_server
    from include.mltrading.alerts.render import compose
    from include.mltrading.alerts.store import claim_mail, mail_not_sent, mail_sent

    due, sent = claim_mail(connection), 0
    if due is None:
        return 0
    began, pause = time.monotonic(), 0.0
    try:
        with mail_server() as send:
            while due is not None and time.monotonic() < began + _MOST_SECONDS:
                try:
                    send(compose(due, deployments.alerts.addressees, ""))
                except MailRefusedError as error:
                    log.warning("%s", error)  # its claim lapses in two minutes; the others go on
                else:
                    mail_sent(connection, due)
                    sent += 1
                due = claim_mail(connection)
    except MailServerError as error:
        log.warning("%s; the next run tries again", error)
        if hung(began):
            pause = _PATIENCE * (time.monotonic() - began)
    if due is not None:
        mail_not_sent(connection, due, pause)
    return sent


def hung(began: float) -> bool:
    """Whether so much time has passed that a server did not just refuse."""
    return time.monotonic() > began + 1


def send_one(message: Any) -> bool:
    """Send a mail that no table holds; False, and a line in the log, when it cannot be."""
    from include.mltrading.airflow.mail import mail_server

    try:
        with mail_server() as send:
            send(message)
    except MLTradingError as error:
        log.warning("%s; the next try of a task tells it", error)
        return False
    return True
