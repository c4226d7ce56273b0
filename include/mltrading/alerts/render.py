"""An alert as a mail: a subject, a text, and the same as plain HTML that a phone shows well."""

from __future__ import annotations

import re
from collections.abc import Sequence, Sized
from datetime import datetime
from email import policy
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from html import escape
from zoneinfo import ZoneInfo

from include.mltrading.alerts.store import Details, Due

# A subject stands in one line: some programs show where it was folded.
POLICY = policy.SMTP.clone(max_line_length=300)
_NEW_YORK = ZoneInfo("America/New_York")
_SHOWN = 25
_LONGEST = 400
_COLOURS = {"critical": "#b3261e", "warning": "#8a5a00", "info": "#1f5f99", "over": "#1b6e3c"}


def compose(due: Due, addressees: Sequence[str], sender: str) -> EmailMessage:
    """The mail about an alert: text and HTML with the same words."""
    over = not due.is_news
    state = "over" if over else due.severity
    mark = "over" if over else f"still {due.severity}" if due.sent_at else due.severity
    facts = list(due.details.facts)
    facts.append(("Seen since" if not over else "Was so from", in_new_york(due.opened_at)))
    if due.resolved_at is not None and (over or due.resolved_at != due.opened_at):
        facts.append(("Over since", in_new_york(due.resolved_at)))
    # A server or a person cannot put a header of its own into the mail by way of a name.
    title = " ".join(due.subject.split())
    next_step = "Nothing; it is over." if over else due.details.next_step
    message = EmailMessage(POLICY)
    message["Subject"] = f"[MLTrading] {mark}: {title}"
    message["From"] = sender
    message["To"] = ", ".join(addressees)
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="mltrading.invalid")
    # Out-of-office replies to it help nobody.
    message["Auto-Submitted"] = "auto-generated"
    shown = Details(next_step, facts, due.details.heading, [] if over else due.details.items)
    message.set_content(_text(mark, title, shown))
    message.add_alternative(_html(mark, _COLOURS[state], title, shown), subtype="html")
    return message


def in_new_york(instant: datetime) -> str:
    """An instant as people on duty say it."""
    return f"{instant.astimezone(_NEW_YORK):%a %Y-%m-%d %H:%M} New York"


def clock_in_new_york(instant: datetime) -> str:
    """The time of day, to the second."""
    return f"{instant.astimezone(_NEW_YORK):%H:%M:%S} New York"


def counted(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _more(details: Details) -> list[str]:
    left = len(details.items) - _SHOWN
    return [f"and {left} more"] if left > 0 else []


def _text(mark: str, title: str, details: Details) -> str:
    lines = [f"{mark.upper()}: {title}", "", f"Next: {details.next_step}", ""]
    lines += [f"{name}: {_short(value)}" for name, value in details.facts]
    if details.items:
        lines += ["", f"{details.heading}:"]
        for item in details.items[:_SHOWN]:
            lines.append(f"- {_short(item.text)}")
            lines += [f"  {item.url}"] if item.url else []
        lines += [f"- {text}" for text in _more(details)]
    return "\n".join(lines) + "\n"


def _html(mark: str, colour: str, title: str, details: Details) -> str:
    facts = "".join(
        '<div style="margin:0 0 8px"><span style="color:#5c5f66;font-size:13px">'
        f"{escape(name)}</span><br>{_linked(_short(value))}</div>"
        for name, value in details.facts
    )
    items = ""
    if details.items:
        lines = [_line(_short(item.text), item.url) for item in details.items[:_SHOWN]]
        lines += [_line(text, None) for text in _more(details)]
        items = (
            f'<h2 style="font-size:15px;margin:20px 0 6px">{escape(details.heading)}</h2>'
            f'<ul style="margin:0;padding-left:20px">{"".join(lines)}</ul>'
        )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title></head>"
        '<body style="margin:0;background:#f3f4f6">'
        '<div style="max-width:600px;margin:0 auto;background:#fff;padding:20px;color:#1c1e21;'
        "font:16px/1.45 system-ui,-apple-system,Segoe UI,Roboto,sans-serif;overflow-wrap:anywhere;"
        f'border-top:6px solid {colour}">'
        f'<p style="margin:0;color:{colour};font-weight:700">{escape(mark.upper())}</p>'
        f'<h1 style="font-size:20px;line-height:1.3;margin:4px 0 16px">{escape(title)}</h1>'
        f'<p style="margin:0 0 16px;padding:12px;background:#f3f4f6"><b>Next:</b> '
        f"{_with_code(details.next_step)}</p>"
        f"{facts}{items}</div></body></html>\n"
    )


def _line(text: str, url: str | None) -> str:
    words = escape(text) if url is None else f'<a href="{escape(url)}">{escape(text)}</a>'
    return f'<li style="margin:0 0 6px">{words}</li>'


def _with_code(text: str) -> str:
    """Text in which `…` is something to type."""
    look = "background:#e4e6ea;padding:1px 4px;font-size:14px"
    return re.sub(r"`([^`]+)`", rf'<code style="{look}">\1</code>', escape(text))


def _linked(value: str) -> str:
    if value.startswith(("http://", "https://")) and " " not in value:
        return f'<a href="{escape(value)}">Open in Airflow</a>'
    return escape(value)
