"""Create the roles and an administrator: `python -m include.standalone.admin_user NAME`, password on stdin.

`airflow users create` takes the password on its command line, where every user of the machine sees it.
"""

from __future__ import annotations

import sys

from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

from include.mltrading.airflow import apply_roles


def main(name: str, password: str) -> None:
    """Create user `name` with role Admin, or give an existing one this password."""
    with get_application_builder() as builder:
        manager = builder.sm
        # Here, because every further start of Airflow takes seconds.
        apply_roles.apply(manager)
        user = manager.find_user(username=name)
        if user is not None:
            manager.reset_password(user.id, password)
            return
        role = manager.find_role("Admin")
        # The address is a formality of the user table; nothing is ever sent to it.
        if not manager.add_user(name, "Local", "Administrator", f"{name}@localhost.invalid", role, password):
            raise SystemExit(f"Airflow refused to create the user {name}")


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.read().strip())
