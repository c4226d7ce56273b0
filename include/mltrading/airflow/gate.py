"""The gate of the features DAG: it opens when the collection of the same tick has been published."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.exceptions import AirflowFailException, AirflowSkipException
from airflow.providers.standard.exceptions import ExternalTaskFailedError
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.utils import timezone

from include.mltrading.airflow.compat import is_paused, run_exists, run_type
from include.mltrading.airflow.late_runs import look_around


class CollectionGate(ExternalTaskSensor):
    """Waits for the collection's latest tick at or before this run's own tick.

    collection_timetable: the schedule of the DAG that is waited for. missing_run: so long after its tick
    a collection run may still be missing. A manual run does not wait, since nothing runs beside it; a
    backfill without a collection run goes on with what is stored; a scheduled run skips, naming the cause.
    """

    def __init__(
        self, *, collection_timetable: CronDataIntervalTimetable, missing_run: timedelta, **kwargs: Any
    ) -> None:
        super().__init__(execution_date_fn=self._matched_logical_date, mode="reschedule", **kwargs)
        self.collection_timetable = collection_timetable
        self.missing_run = missing_run

    def poke(self, context: Any) -> bool:
        """Whether the gate is open. Raises AirflowSkipException or AirflowFailException when not."""
        # The gate looks again and again, as nobody else does, while nothing is worked on.
        look_around(set())
        kind = run_type(context["dag_run"])
        if kind == "manual":
            self.log.info("A manual run does not wait for a collection")
            return True
        interval = self._matched_interval(context["data_interval_end"])
        if not run_exists(self.external_dag_id, interval.start):
            if kind == "backfill":
                self.log.info(
                    "%s has no run for the tick %s; computing from the bars that are stored",
                    self.external_dag_id,
                    interval.end,
                )
                return True
            if datetime.now(UTC) > interval.end + self.missing_run:
                cause = "is paused" if is_paused(self.external_dag_id) else "was not running then"
                raise AirflowSkipException(
                    f"{self.external_dag_id} has no run for the tick {interval.end}: it {cause}; "
                    "the next tick computes these features too"
                )
            return False
        try:
            return bool(super().poke(context))
        except ExternalTaskFailedError as error:
            # Trying again cannot help; clearing the collection and then this task can.
            raise AirflowFailException(
                f"the collection of the tick {interval.end} failed: clear it in {self.external_dag_id}, "
                f"then clear this task ({error})"
            ) from None

    def _matched_interval(self, own_tick: datetime) -> Any:
        return self.collection_timetable.infer_manual_data_interval(
            run_after=timezone.coerce_datetime(own_tick)
        )

    def _matched_logical_date(self, logical_date: datetime, **context: Any) -> datetime:
        start: datetime = self._matched_interval(context["data_interval_end"]).start
        return start
