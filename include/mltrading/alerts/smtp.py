"""Sending without Airflow: through the mail server in MLTRADING_SMTP_URL."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence
from email.message import EmailMessage
from urllib.parse import unquote

from include.mltrading.configuration.smtp_url import smtp_parts
from include.mltrading.errors import MLTradingError

_TIMEOUT_SECONDS = 30


def send(url: str, messages: Sequence[EmailMessage]) -> None:
    """Send mails. url: smtp://, smtp+starttls:// or smtps://, then [user:password@]host[:port].

    Raises UsageError for another URL, MLTradingError when the server does not take them.
    """
    parts = smtp_parts(url)
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
