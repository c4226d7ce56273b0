"""Makes the roles MarketViewer and MarketOperator in Airflow; repeat it at will.

    python -m include.mltrading.airflow.apply_roles

To be run after `airflow db migrate`. The roles see and trigger our DAGs and no others. The DAGs themselves
give no rights (`access_control`), of which Airflow 3 warns in each task's log. Rights that somebody added by
hand stay; Public gets none.
"""

from __future__ import annotations

from typing import Any, get_args

from include.mltrading.configuration.deployments import DagId

VIEWER_ROLE = "MarketViewer"
OPERATOR_ROLE = "MarketOperator"


def apply(manager: Any) -> None:
    """Create the roles, or add what they lack. manager: the security manager of Flask-AppBuilder."""
    # Airflow's own Viewer and User, without their rights to every DAG.
    viewer = [
        right for right in manager.VIEWER_PERMISSIONS if right[1] != "DAGs" or right[0] == "menu_access"
    ]
    viewer.append(("menu_access", "Market Monitor"))
    # Airflow 3 gives nobody else the pages that plugins add.
    viewer.append(("can_read", "Plugins"))
    viewer += [("can_read", f"DAG:{dag_id}") for dag_id in get_args(DagId)]
    # Whoever may delete runs can hide what went wrong: that is an administrator's.
    change = [
        right
        for right in manager.USER_PERMISSIONS
        if right[1] != "DAGs" and right[0] in ("can_create", "can_edit")
    ]
    change += [("can_edit", f"DAG:{dag_id}") for dag_id in get_args(DagId)]
    manager.bulk_sync_roles(
        [{"role": VIEWER_ROLE, "perms": viewer}, {"role": OPERATOR_ROLE, "perms": viewer + change}]
    )


def main() -> None:
    """Apply the roles to the installation that the environment names."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as builder:
        apply(builder.sm)
    print(f"roles: {VIEWER_ROLE}, {OPERATOR_ROLE}")


if __name__ == "__main__":
    main()
