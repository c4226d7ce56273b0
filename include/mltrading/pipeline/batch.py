"""One step of a run over a batch of symbols: recorded before it starts, isolated per symbol."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import psycopg

from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import MLTradingError, PostponedError, UsageError
from include.mltrading.pipeline.child import Limits, Work
from include.mltrading.pipeline.run import Run
from include.mltrading.pipeline.runner import Outcome, run_isolated
from include.mltrading.store import ledger
from include.mltrading.store.connection import connect, database_errors
from include.mltrading.store.migrations import require_current_schema

# A connection may wait 30 s for a slot, and its login 10 s more.
STARTUP_SECONDS = 45

log = logging.getLogger(__name__)


def run_batch(
    settings: Settings,
    run: Run,
    step: str,
    symbols: Sequence[str],
    work: Work,
    *,
    limits: Limits,
    concurrency: int = 1,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Do the work for each symbol and record every outcome in the ledger.

    A retry leaves out the symbols that an earlier try has served; a try after complete success repeats
    them all, since somebody asked for that. Raises SchemaError or DatabaseError before any work starts.
    """
    attempt = run.attempt(step)
    with connect(settings) as connection:
        require_current_schema(connection)
        wanted = list(symbols)
        if run.try_number > 1:
            earlier = ledger.latest(connection, run.dag_id, run.run_id, step, symbols)
            failed = [
                symbol for symbol in symbols if symbol not in earlier or earlier[symbol].status != ledger.OK
            ]
            if failed and len(failed) < len(wanted):
                log.info("%d symbols were served by an earlier try", len(wanted) - len(failed))
                wanted = failed
        ledger.claim(connection, attempt, wanted)

    def record(outcome: Outcome) -> None:
        if outcome.status != ledger.OK:
            log.error("%s: %s: %s", outcome.symbol, outcome.status, outcome.error)
            _record_failure(settings, attempt, outcome)
        on_outcome(outcome)

    return run_isolated(wanted, work, limits=limits, concurrency=concurrency, on_outcome=record)


def worst_exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 when all is done; 2 when every failure needs a change of configuration; else 75 when nothing but the
    rate limit was in the way, else 1.
    """
    codes = {outcome.exit_code for outcome in outcomes if outcome.exit_code}
    if not codes:
        return 0
    if codes == {UsageError.exit_code}:
        return UsageError.exit_code
    postponed = codes <= {UsageError.exit_code, PostponedError.exit_code}
    return PostponedError.exit_code if postponed else MLTradingError.exit_code


def _record_failure(settings: Settings, attempt: ledger.Attempt, outcome: Outcome) -> None:
    try:
        with connect(settings) as connection:
            ledger.fail(
                connection,
                attempt,
                outcome.symbol,
                outcome.status,
                outcome.error,
                outcome.seconds,
                outcome.cpu_seconds,
                outcome.peak_memory_bytes,
            )
    except (MLTradingError, psycopg.Error) as error:
        # The row stays `running`, which counts as failed; the other symbols must go on.
        text = error if isinstance(error, MLTradingError) else database_errors(error)
        log.error("%s: its outcome could not be recorded: %s", outcome.symbol, text)
