"""Sending through the mail server of Airflow's connection `smtp_default`.

    python -m include.mltrading.airflow.mail FILE...

sends the mails in these files (RFC 5322); the command line does so where Airflow is configured.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path

from include.mltrading.alerts.render import POLICY
from include.mltrading.errors import MLTradingError

CONNECTION_ID = "smtp_default"
# A task and a callback wait so long for an answer, whatever the connection says: a server that hangs must not
# hold up a run, and Airflow ends a callback that takes 50 s.
_MOST_SECONDS = 10

log = logging.getLogger(__name__)


class MailServerError(MLTradingError):
    """The mail server cannot be reached, does not answer any more, or nothing says where it is."""


class MailRefusedError(MLTradingError):
    """The mail server did not take one mail."""


@contextmanager
def mail_server() -> Iterator[Callable[[EmailMessage], None]]:
    """A function that sends a mail. Its `From`, where empty, becomes the connection's from_email.

    Raises MailServerError; the function raises it too, or MailRefusedError.
    """
    import smtplib

    from airflow.providers.common.compat.sdk import AirflowException
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    class Hook(SmtpHook):
        """Does not wait long, and not again."""

        @property
        def timeout(self) -> int:
            return min(int(super().timeout), _MOST_SECONDS)

        @property
        def smtp_retry_limit(self) -> int:
            return 0

    hook = Hook(smtp_conn_id=CONNECTION_ID)
    try:
        hook.get_conn()
    # smtplib's errors are OSErrors; the others are of a connection with a wrong `extra`.
    except (OSError, AirflowException, RuntimeError, ValueError) as error:
        raise MailServerError(_unserved(str(error))) from None
    # The hook's own method sends HTML alone; a mail needs its text part too.
    client = hook._smtp_client
    assert isinstance(client, smtplib.SMTP)  # noqa: S101 - SMTP_SSL is one too

    def send(message: EmailMessage) -> None:
        if not message["From"]:
            del message["From"]
            message["From"] = hook.from_email or f"mltrading@{socket.gethostname()}"
        try:
            refused = client.send_message(message)
        except smtplib.SMTPServerDisconnected as error:  # also when it has not answered in time
            raise MailServerError(_unserved(str(error))) from None
        except (OSError, ValueError) as error:
            raise MailRefusedError(f"the mail server refused {message['Subject']!r}: {error}") from None
        if refused:
            log.warning("the mail server refused some of the addressees: %s", refused)

    with hook:
        yield send


def _unserved(why: str) -> str:
    return f"no mail can be sent: {why}; start the mail server or correct the connection {CONNECTION_ID}"


def main(files: Sequence[str]) -> int:
    """Send the mails; 0 = all sent, 1 = not."""
    # As Airflow 3's own commands say it: the connection may come from its database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        with mail_server() as send:
            for file in files:
                send(message_from_bytes(Path(file).read_bytes(), policy=POLICY))
    except MLTradingError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
