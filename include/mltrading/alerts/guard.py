"""Telling of trouble must not make any."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from include.mltrading.errors import MLTradingError

log = logging.getLogger(__name__)


@contextmanager
def never_in_the_way() -> Iterator[None]:
    """What fails in the block is logged: a known error by a line, any other with its traceback."""
    try:
        yield
    except Exception as error:
        from psycopg import Error as PsycopgError  # only now, when something has gone wrong

        from include.mltrading.store.connection import database_errors

        if isinstance(error, PsycopgError):
            error = database_errors(error)
        if isinstance(error, MLTradingError):
            log.warning("an alert could not be looked for or told: %s", error)
        else:
            log.exception("an alert could not be looked for or told")
