from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.mltrading.configuration.deployments import load_deployments
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import UsageError

# The names, schedules and figures of the deployment guide that this system carries out.
GUIDE: dict[str, Any] = {
    "deployments": {
        "complete-data-and-features-ondemand": {
            "display_name": "Complete Data + Features Pipeline",
            "category": "comprehensive-pipeline",
            "priority": 1,
            "schedule_type": "manual",
            "expected_runtime_minutes": 30,
            "alert_threshold_hours": 24,
        },
        "feature-engineering-production-subprocess": {
            "display_name": "Production Feature Engineering",
            "category": "production-pipeline",
            "priority": 2,
            "schedule_type": "market_hours_offset",
            "expected_runtime_minutes": 10,
            "alert_threshold_hours": 2,
        },
        "yahoo-production-data-collection": {
            "display_name": "Yahoo Finance Data Collection",
            "category": "data-collection",
            "priority": 3,
            "schedule_type": "market_hours",
            "expected_runtime_minutes": 8,
            "alert_threshold_hours": 2,
        },
    },
    "dashboard": {
        "primary_deployments": [
            "complete-data-and-features-ondemand",
            "feature-engineering-production-subprocess",
            "yahoo-production-data-collection",
        ],
        "max_visible_deployments": 5,
        "refresh_intervals": {"pipeline_status": 30, "system_health": 60, "data_freshness": 45},
    },
    "schedule_types": {
        "market_hours": {
            "cron": "0 9-16 * * 1-5",
            "timezone": "America/New_York",
            "description": "Hourly during market hours (9 AM - 4 PM EST, weekdays)",
        },
        "market_hours_offset": {
            "cron": "5 9-16 * * 1-5",
            "timezone": "America/New_York",
            "description": "5 minutes after each hour during market hours",
        },
        "manual": {
            "cron": None,
            "timezone": "UTC",
            "description": "Manual trigger only, no automatic schedule",
        },
    },
}


def shipped() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(Settings().deployments_file.read_text())
    return content


def written(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_every_key_and_value_of_the_guide_stands_unchanged() -> None:
    assert {key: shipped()[key] for key in GUIDE} == GUIDE
    assert set(shipped()) - set(GUIDE) == {"pipeline", "exchange", "alerts"}


def test_the_sla_is_one_and_a_half_times_the_expected_run_time() -> None:
    deployments = load_deployments()
    assert deployments.sla("yahoo-production-data-collection") == timedelta(minutes=12)
    assert deployments.sla("feature-engineering-production-subprocess") == timedelta(minutes=15)
    assert deployments.sla("complete-data-and-features-ondemand") == timedelta(minutes=45)


def special(*others: dict[str, Any], **day: object) -> Callable[[dict[str, Any]], None]:
    """A change that puts days with other hours into the file."""
    return lambda content: content["exchange"].update(special_days=[day, *others])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.update(extra=1), "unknown key extra"),
        (lambda c: c["pipeline"].update(retrys=3), "unknown key pipeline.retrys"),
        (special(day="2026-11-18"), "give either closed: true, or opens or closes"),
        (
            special(day="2026-11-18", closed=True, opens="10:30"),
            "give either closed: true, or opens or closes",
        ),
        (special(day="2026-11-18", closes=840), "840 is no time of the day"),
        (special(day="2026-11-18", opens="13:00", closes="12:00"), "give opens before closes"),
        (special(day="2026-11-18", closes="17:00"), "both from 09:30 to 16:00"),
        (special({"day": "2026-11-18", "closed": True}, day="2026-11-18", closed=True), "more than once"),
        (
            lambda c: c["deployments"]["yahoo-production-data-collection"].update(prio=1),
            "unknown key deployments.yahoo-production-data-collection.prio",
        ),
        (lambda c: c["deployments"].update(other={}), "unknown key deployments.other: remove"),
        (lambda c: c["schedule_types"].update({None: {}}), "unknown key schedule_types.None: remove"),
        (lambda c: c["pipeline"].update({5: 7}), "unknown key pipeline.5: remove"),
        (lambda c: c["pipeline"].update({True: 7}), "unknown key pipeline.1: remove"),
        (
            lambda c: c["deployments"].pop("yahoo-production-data-collection"),
            "deployments lacks yahoo-production-data-collection",
        ),
        (
            lambda c: c["deployments"]["yahoo-production-data-collection"].update(schedule_type="daily"),
            "'daily' is not one of schedule_types",
        ),
        (lambda c: c["pipeline"].update(minimum_good_share=80), "minimum_good_share is 80: give at most 1"),
        (lambda c: c["alerts"].update(sla_factor="late"), "alerts.sla_factor is 'late': give a number"),
        (lambda c: c["alerts"].update(addressees=[]), "alerts.addressees is []: give at least 1"),
        (lambda c: c["alerts"].update(sla_factor=float("nan")), "alerts.sla_factor is nan: give at"),
        (lambda c: c["pipeline"].update(gate_poke_seconds=10**25), "000: give at most 1000000"),
        (lambda c: c["pipeline"].update(gate_timeout_minutes=float("inf")), "minutes is inf: give at most"),
        (lambda c: c["pipeline"].update(retries=None), "pipeline.retries is empty: give a whole number"),
        (lambda c: c["pipeline"].update(start_date="soon"), "start_date is 'soon': give a date such as"),
        (lambda c: c["pipeline"].update(retries=True), "pipeline.retries is True: give a whole number"),
        (lambda c: c["alerts"].update(sla_factor="2"), "alerts.sla_factor is '2': give a number"),
        (lambda c: c["pipeline"]["tags"].append("x" * 101), "x': give at most 100 characters"),
        (lambda c: c["pipeline"].pop("retries"), "pipeline.retries is missing, add it"),
        (lambda c: c["alerts"].update(addressees=["ops"]), "alerts.addressees.0"),
        (lambda c: c["alerts"].update(addressees=["a@b.c", "Ops <ops@b.c>"]), "alerts.addressees.1"),
        (lambda c: c["alerts"].update(addressees=["müller@b.c"]), "alerts.addressees.0"),
        (lambda c: c["alerts"].update(addressees=["a@b.c\nBcc: x@y.z"]), "alerts.addressees.0"),
        (lambda c: c["alerts"]["quiet_minutes"].pop("run_late"), "quiet_minutes lacks run_late"),
        (lambda c: c["dashboard"]["primary_deployments"].append("x"), "dashboard.primary_deployments.3"),
    ],
)
def test_a_wrong_file_is_refused_by_its_key(tmp_path: Path, change: Any, named: str) -> None:
    content = shipped()
    change(content)
    path = written(tmp_path / "deployments.yaml", content)
    with pytest.raises(UsageError) as refused:
        load_deployments(path)
    assert str(path) in str(refused.value)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_yaml_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deployments.yaml"
    with pytest.raises(UsageError, match="cannot be read"):
        load_deployments(path)
    for text, said in (
        (
            "a: [",
            "is not valid YAML: while parsing a flow node did not find expected node content in line 2, col",
        ),
        (
            "a: &itself\n  b: *itself",
            "is not valid YAML: an alias stands within what it names in line 1, column 4",
        ),
        (
            "a: 1\nb: 2026-13-01",
            "is not valid YAML: '2026-13-01' is no date, month must be in 1..12 in line 2",
        ),
        ("a: 0x_", "is not valid YAML: '0x_' is no int, "),
        ("a: !!bool maybe", "is not valid YAML: 'maybe' is no bool, "),
        ("a: !!timestamp abc", "is not valid YAML: 'abc' is no date, "),
        ("[" * 5000 + "]" * 5000, "is nested too deeply"),
        ("[" * 50 + "]" * 50, "give keys with their values"),
        ("", "holds nothing; restore it from the repository"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError) as refused:
            load_deployments(path)
        assert str(refused.value).startswith(f"{path}: {said}"), text[:20]
    path.write_bytes(b"deployments: caf\xe9")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        load_deployments(path)
