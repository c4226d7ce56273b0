"""Which role may do what with the DAGs, and what the roles themselves hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.models import DagBag
from airflow.providers.fab.auth_manager.security_manager.override import FabAirflowSecurityManagerOverride

from include.mltrading.airflow.apply_roles import apply

ROOT = Path(__file__).resolve().parents[2]


class Manager:
    """Airflow's own lists of rights; remembers what it is asked for."""

    VIEWER_PERMISSIONS = FabAirflowSecurityManagerOverride.VIEWER_PERMISSIONS
    USER_PERMISSIONS = FabAirflowSecurityManagerOverride.USER_PERMISSIONS

    def bulk_sync_roles(self, roles: list[dict[str, Any]]) -> None:
        self.rights = {role["role"]: set(role["perms"]) for role in roles}


def test_each_dag_is_read_by_both_roles_and_changed_by_operators_only() -> None:
    bag = DagBag(ROOT / "dags", include_examples=False)
    assert not bag.import_errors
    assert len(bag.dags) == 3
    for dag in bag.dags.values():
        granted = {role: rights["DAGs"] for role, rights in (dag.access_control or {}).items()}
        assert granted == {"MarketViewer": {"can_read"}, "MarketOperator": {"can_read", "can_edit"}}
        # What Astro's own test of a new project demands.
        assert dag.tags
        assert dag.default_args["retries"] >= 2


def test_no_role_holds_a_right_to_every_dag_or_may_delete() -> None:
    manager = Manager()
    apply(manager)
    assert set(manager.rights) == {"MarketViewer", "MarketOperator"}
    for rights in manager.rights.values():
        assert {action for action, resource in rights if resource == "DAGs"} == {"menu_access"}
        assert not [right for right in rights if right[0] == "can_delete"]
    more = manager.rights["MarketOperator"] - manager.rights["MarketViewer"]
    assert ("can_create", "DAG Runs") in more
    assert ("can_edit", "Task Instances") in more
