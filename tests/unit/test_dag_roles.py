"""Which role may do what with the DAGs, and what the roles themselves hold."""

from __future__ import annotations

from typing import Any

from airflow.providers.fab.auth_manager.security_manager.override import FabAirflowSecurityManagerOverride
from airflow_lanes import load_dags

from include.mltrading.airflow.apply_roles import apply


class Manager:
    """Airflow's own lists of rights; remembers what it is asked for."""

    VIEWER_PERMISSIONS = FabAirflowSecurityManagerOverride.VIEWER_PERMISSIONS
    USER_PERMISSIONS = FabAirflowSecurityManagerOverride.USER_PERMISSIONS

    def bulk_sync_roles(self, roles: list[dict[str, Any]]) -> None:
        self.rights = {role["role"]: set(role["perms"]) for role in roles}


def test_each_dag_is_read_by_both_roles_and_changed_by_operators_only() -> None:
    manager = Manager()
    apply(manager)
    bag = load_dags()
    assert len(bag.dags) == 3
    for dag_id, dag in bag.dags.items():
        on_it = f"DAG:{dag_id}"
        granted = {
            role: {action for action, resource in rights if resource == on_it}
            for role, rights in manager.rights.items()
        }
        assert granted == {"MarketViewer": {"can_read"}, "MarketOperator": {"can_read", "can_edit"}}
        # Airflow 3 warns of it in each task's log.
        assert dag.access_control is None
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
