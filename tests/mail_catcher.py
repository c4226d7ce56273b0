"""A real SMTP server that keeps what it gets."""

from __future__ import annotations

import logging
import socket
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller


class MailCatcher:
    """An SMTP server on 127.0.0.1. mails: what came in; arrivals: when each did, UTC. refused: addressees.

    It can be stopped and started again, at the same port.
    """

    def __init__(self) -> None:
        logging.getLogger("mail.log").setLevel(logging.WARNING)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.mails: list[EmailMessage] = []
        self.arrivals: list[datetime] = []
        self.refused: set[str] = set()
        self._controller: Controller | None = None

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address in self.refused:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        self.arrivals.append(datetime.now(UTC))
        return "250 OK"

    def start(self) -> None:
        """Take mails from now on."""
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def __enter__(self) -> MailCatcher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def connection(self) -> str:
        """The Airflow connection to it, for AIRFLOW_CONN_SMTP_DEFAULT."""
        options = "from_email=mltrading%40localhost&disable_ssl=true&disable_tls=true&timeout=5&retry_limit=0"
        return f"smtp://127.0.0.1:{self.port}/?{options}"

    @property
    def subjects(self) -> list[str]:
        """Of all mails, in order."""
        return [str(mail["Subject"]) for mail in self.mails]

    def take(self) -> list[EmailMessage]:
        """The mails so far, which are forgotten."""
        taken = list(self.mails)
        self.mails.clear()
        self.arrivals.clear()
        return taken


def text_of(mail: EmailMessage) -> str:
    """Its text part."""
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def html_of(mail: EmailMessage) -> str:
    """Its HTML part."""
    part = mail.get_body(("html",))
    assert part is not None
    return str(part.get_content())
