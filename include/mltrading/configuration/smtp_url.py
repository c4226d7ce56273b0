"""The mail server in MLTRADING_SMTP_URL."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from include.mltrading.errors import UsageError


def smtp_parts(url: str) -> SplitResult:
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
