"""The gate of the features DAG: it opens when the collection of the same tick has been published."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.providers.standard.exceptions import ExternalTaskFailedError
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor

from include.mltrading.airflow.compat import GATE_MODE, is_paused, run_exists, run_facts, window_end
from include.mltrading.airflow.late_runs import look_around
from include.mltrading.configuration.deployments import ScheduleType


class CollectionGate(ExternalTaskSensor):
    """Waits for the collection's latest tick at or before this run's own tick.

    collection_schedule: that of the DAG that is waited for. missing_run: so long after its tick
    a collection run may still be missing. A manual run does not wait, since nothing runs beside it; a
    backfill without a collection run goes on with what is stored; a scheduled run skips, naming the cause.
    """

    def __init__(self, *, collection_schedule: ScheduleType, missing_run: timedelta, **kwargs: Any) -> None:
        super().__init__(execution_date_fn=_matched_logical_date, mode=GATE_MODE, **kwargs)
        self.collection_schedule = collection_schedule
        self.missing_run = missing_run

    def poke(self, context: Any) -> bool:
        """Whether the gate is open. Raises AirflowSkipException or AirflowFailException when not."""
        # The gate looks again and again, as nobody else does, while nothing is worked on.
        run = run_facts(context["dag_run"])
        look_around(set(), run)
        if run.run_type == "manual":
            self.log.info("A manual run does not wait for a collection")
            return True
        tick = self.collection_schedule.tick_until(run.tick)
        if not run_exists(self.external_dag_id, self.collection_schedule.tick_before(tick)):
            if run.run_type == "backfill":
                self.log.info(
                    "%s has no run for the tick %s; computing from the bars that are stored",
                    self.external_dag_id,
                    tick,
                )
                return True
            if datetime.now(UTC) > tick + self.missing_run:
                cause = "is paused" if is_paused(self.external_dag_id) else "was not running then"
                raise AirflowSkipException(
                    f"{self.external_dag_id} has no run for the tick {tick}: it {cause}; "
                    "the next tick computes these features too"
                )
            return False
        try:
            return bool(super().poke(context))
        except ExternalTaskFailedError as error:
            # Trying again cannot help; clearing the collection and then this task can.
            raise AirflowFailException(
                f"the collection of the tick {tick} failed: clear it in {self.external_dag_id}, "
                f"then clear this task ({error})"
            ) from None


# A function of the module: the text of a method names an address, by which each parse would be a new version.
def _matched_logical_date(own_logical_date: datetime, **context: Any) -> datetime:
    """The logical date of the collection run that the gate waits for: the tick before its own."""
    schedule: ScheduleType = context["task"].collection_schedule
    return schedule.tick_before(schedule.tick_until(window_end(context["dag_run"])))
