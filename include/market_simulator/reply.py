"""An HTTP answer as data, and the bodies that Yahoo sends beside charts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reply:
    """status, body and headers of an answer; sent after `delay` seconds, or cut by a TCP reset instead."""

    status: int
    body: bytes
    content_type: str = "application/json;charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    reset: bool = False


def json_reply(document: object, status: int = 200) -> Reply:
    """`document` as JSON; raises ValueError on NaN, which JSON has not."""
    return Reply(status, json.dumps(document, separators=(",", ":"), allow_nan=False).encode())


def chart_error(status: int, code: str, description: str) -> Reply:
    """The chart service's own way to say no."""
    return json_reply(
        {"chart": {"result": None, "error": {"code": code, "description": description}}}, status
    )


def not_found() -> Reply:
    """The answer for a symbol that does not exist."""
    return chart_error(404, "Not Found", "No data found, symbol may be delisted")


def status_reply(status: int, retry_after: float | None) -> Reply:
    """A bare HTTP status as Yahoo's edge sends it, with a Retry-After header where one is given."""
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    if status == 404:
        return not_found()
    text = {429: "Too Many Requests", 500: "Internal Server Error"}.get(status, f"HTTP {status}")
    return Reply(status, f"{text}\r\n".encode(), "text/plain;charset=utf-8", headers)
