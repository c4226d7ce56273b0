"""Which backups of a folder are kept: one a day, one a week, and always the newest."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.operations.backup import locked_part
from include.mltrading.store.dump_file import require_dump_file

_TIME = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"(?P<database>.+)-(?P<time>\d{8}T\d{6}Z)\.dump")


@dataclass(frozen=True)
class Keep:
    """Of how many days and ISO weeks (UTC) the newest backup is kept; those without any do not count."""

    daily: int
    weekly: int

    @classmethod
    def from_options(cls, directory: Path | None, daily: int | None, weekly: int | None) -> Keep | None:
        """None where nothing is to be deleted. Raises UsageError."""
        if daily is None and weekly is None:
            return None
        if directory is None:
            raise UsageError("--keep-daily and --keep-weekly go with --directory only")
        for name, number in (("daily", daily), ("weekly", weekly)):
            if number is not None and number < 1:
                raise UsageError(f"--keep-{name} {number}: give at least 1")
        return cls(daily or 0, weekly or 0)


def new_file(directory: Path, database: str) -> Path:
    """The path of a backup made now. Raises UsageError where the folder is missing."""
    try:
        there = directory.is_dir()
    except OSError as error:
        raise UsageError(f"{directory} cannot be used ({error.strerror}): give another folder") from None
    if not there:
        raise UsageError(f"{directory} is no folder: create it, or mount what should be there")
    return directory / f"{database.replace('/', '_')}-{datetime.now(UTC).strftime(_TIME)}.dump"


def prune(newest: Path, keep: Keep) -> list[str]:
    """Delete the older backups beside `newest` that need not be kept, and what killed ones left; their paths.

    Only files that `backup --directory` made of the same database: by their name, and by what they are.
    Raises MLTradingError for one that cannot be deleted.
    """
    try:
        return _prune(newest, keep)
    except OSError as error:
        raise MLTradingError(
            f"{newest} is good, but {error.filename} cannot be deleted ({error.strerror}): delete older "
            "backups by hand, and give the folder to the user that makes them"
        ) from None


def _prune(newest: Path, keep: Keep) -> list[str]:
    given = _NAME.fullmatch(newest.name)
    if given is None:
        raise UsageError(f"{newest} has no name that `backup --directory` gives")
    now = _time_of(given)
    found: dict[Path, datetime | None] = {}
    for path in newest.parent.iterdir():
        name = _NAME.fullmatch(path.name.removesuffix(".part"))
        if name is None or name["database"] != given["database"] or not _is_file(path):
            continue
        if path.name.endswith(".part"):
            found[path] = None
        else:
            with suppress(UsageError, ValueError):
                require_dump_file(path)
                # One of the future tells of a wrong clock: it stays, and takes no other one's place.
                if _time_of(name) <= now:
                    found[path] = _time_of(name)
    kept = kept_of([made for made in found.values() if made is not None], keep)
    deleted = []
    for path, made in sorted(found.items()):
        if made is None:
            with suppress(UsageError), locked_part(path):  # not one that is being written
                path.unlink()
                deleted.append(str(path))
        elif made not in kept and path != newest:
            path.unlink()
            deleted.append(str(path))
    return deleted


def _time_of(name: re.Match[str]) -> datetime:
    return datetime.strptime(name["time"], _TIME).replace(tzinfo=UTC)


def kept_of(times: Iterable[datetime], keep: Keep) -> set[datetime]:
    """The times of the backups to keep."""
    ordered = sorted(times, reverse=True)
    return {
        *ordered[:1],
        *_newest_of(ordered, keep.daily, datetime.date),
        *_newest_of(ordered, keep.weekly, lambda made: made.isocalendar()[:2]),
    }


def _newest_of(ordered: list[datetime], count: int, span: Callable[[datetime], object]) -> list[datetime]:
    """The newest of each of the last `count` spans of time in which there is any."""
    newest: dict[object, datetime] = {}
    for made in ordered:
        newest.setdefault(span(made), made)
    return list(newest.values())[:count]


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)
