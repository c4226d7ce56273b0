"""What `astro dev parse` runs: the project's DAG files import without an error.

It only needs the DAG files: no connection, variable or migrated database is read while they are parsed.
"""

import pytest
from airflow.models import DagBag


@pytest.fixture(scope="module")
def dag_bag() -> DagBag:
    return DagBag(include_examples=False)


def test_dag_files_import_without_an_error(dag_bag: DagBag) -> None:
    errors = [f"{file}:\n{text}" for file, text in dag_bag.import_errors.items()]
    assert not errors, "\n\n".join(errors)  # noqa: S101


def test_the_project_has_dags(dag_bag: DagBag) -> None:
    assert dag_bag.dags, "no DAG was found below the dags folder"  # noqa: S101
