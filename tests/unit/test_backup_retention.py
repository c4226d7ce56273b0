"""Which backups are kept."""

from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.mltrading.__main__ import main
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import MLTradingError, UsageError
from include.mltrading.operations import archive_files, backup
from include.mltrading.operations.retention import Keep, kept_of, new_file, prune

NEWEST = datetime(2026, 3, 11, 2, 30, tzinfo=UTC)  # a Wednesday
NIGHTS = [NEWEST - timedelta(days=days) for days in range(100)]


def test_seven_daily_and_four_weekly_of_a_hundred_nights() -> None:
    kept = kept_of(NIGHTS, Keep(7, 4))
    # This week's newest is today's, the weeks before end with their Sundays.
    sundays = [datetime(2026, 3, 8, 2, 30, tzinfo=UTC) - timedelta(weeks=weeks) for weeks in range(3)]
    assert kept == {*NIGHTS[:7], *sundays}


def test_of_several_backups_of_a_day_the_newest_is_kept() -> None:
    hours = [NEWEST + timedelta(hours=hour) for hour in range(20)]
    assert kept_of([*hours, *NIGHTS[1:]], Keep(2, 1)) == {hours[-1], NIGHTS[1]}


def test_days_and_weeks_without_a_backup_do_not_count() -> None:
    seldom = [NEWEST - timedelta(days=40 * number) for number in range(5)]
    assert kept_of(seldom, Keep(3, 2)) == set(seldom[:3])


def test_the_newest_is_kept_in_any_case() -> None:
    assert kept_of([NEWEST, *NIGHTS[1:]], Keep(0, 0)) == {NEWEST}
    assert kept_of([], Keep(7, 4)) == set()


def test_an_iso_week_goes_over_the_turn_of_the_year() -> None:
    days = [datetime(2025, 12, 29, tzinfo=UTC) + timedelta(days=number) for number in range(7)]
    assert kept_of(days, Keep(0, 2)) == {days[-1]}


def test_a_path_that_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    # A name that is too long does for everybody what a closed folder does for all but root.
    path = tmp_path / ("x" * 300)
    with pytest.raises(UsageError, match=r"xxx cannot be used \(File name too long\)"):
        backup.backup(Settings(), path, lambda *_: None)
    with pytest.raises(UsageError, match=r"xxx cannot be used \(File name too long\)"):
        new_file(path, "mltrading")
    with pytest.raises(UsageError, match=r"xxx cannot be read \(File name too long\)"):
        archive_files.manifests([path])


def test_an_older_backup_that_cannot_be_deleted_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in ("20260310", "20260311"):
        (tmp_path / f"mltrading-{day}T023000Z.dump").write_bytes(b"PGDMP")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    newest = tmp_path / "mltrading-20260311T023000Z.dump"
    with pytest.raises(MLTradingError) as told:
        prune(newest, Keep(1, 1))
    assert f"{newest} is good" in str(told.value)
    assert "mltrading-20260310T023000Z.dump cannot be deleted (Permission denied)" in str(told.value)


def test_a_backup_of_the_future_stays_and_takes_no_place(tmp_path: Path) -> None:
    future, newest, older, oldest = (
        tmp_path / f"mltrading-{day}T023000Z.dump" for day in ("20990101", "20260311", "20260310", "20260309")
    )
    for path in (future, newest, older, oldest):
        path.write_bytes(b"PGDMP")
    assert prune(newest, Keep(2, 0)) == [str(oldest)]
    assert set(tmp_path.iterdir()) == {future, newest, older}


@pytest.mark.parametrize("arguments", [("backup", "--directory", ""), ("backup", ""), ("restore", "")])
def test_an_empty_path_is_not_the_current_folder(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "the path is empty" in capsys.readouterr().err
