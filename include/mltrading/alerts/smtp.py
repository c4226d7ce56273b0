"""Sending without Airflow: through the mail server in MLTRADING_SMTP_URL."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence
from email.message import EmailMessage
from urllib.parse import SplitResult, unquote, urlsplit

from include.mltrading.errors import MLTradingError, UsageError

_TIMEOUT_SECONDS = 30


def parts_of(url: str) -> SplitResult:
    """The parts of a mail server's URL. Raises UsageError, which shows no password, for another one."""
    try:
        parts = urlsplit(url)
        usable = parts.hostname is not None and (parts.port or True)
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable or parts.scheme not in ("smtp", "smtp+starttls", "smtps"):
        raise UsageError(
            "MLTRADING_SMTP_URL: give smtp://host:25, smtp+starttls://user:password@host:587 or smtps://…"
        )
    return parts


def send(url: str, messages: Sequence[EmailMessage]) -> None:
    """Send mails. url: smtp://, smtp+starttls:// or smtps://, then [user:password@]host[:port].

    Raises UsageError for another URL, MLTradingError when the server does not take them.
    """
    parts = parts_of(url)
    host, port = parts.hostname or "", parts.port
    try:
        kind = smtplib.SMTP_SSL if parts.scheme == "smtps" else smtplib.SMTP
        with kind(host, port or 0, timeout=_TIMEOUT_SECONDS) as client:
            if parts.scheme == "smtp+starttls":
                client.starttls()
            if parts.username and parts.password:
                client.login(unquote(parts.username), unquote(parts.password))
            for message in messages:
                client.send_message(message)
    except OSError as error:  # smtplib's errors are OSErrors
        raise MLTradingError(
            f"the mail server at {host} did not take the mails: {error}; correct MLTRADING_SMTP_URL"
        ) from None
