"""A few connections that a long-lived process shares; only the web server is one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from include.mltrading.store.connection import Connection

MOST_CONNECTIONS = 10
WAIT_SECONDS = 30.0
_LIFE_SECONDS = 3600.0
_IDLE_SECONDS = 120.0
_LOOK_SECONDS = 0.5


class ReadPool:
    """At most 10 connections, made when they are needed, for an hour each; who finds none free waits 30 s.

    conninfo: libpq's connection string. Not to be shared over a fork: make it in the process that uses it.
    """

    def __init__(self, conninfo: str, *, most: int = MOST_CONNECTIONS, wait: float = WAIT_SECONDS) -> None:
        self._wait = wait
        self._failed_at, self._failure = float("-inf"), ""
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            conninfo,
            min_size=0,
            max_size=most,
            timeout=wait,
            max_lifetime=_LIFE_SECONDS,
            max_idle=_IDLE_SECONDS,
            # Attempts end soon after the last one who waits has given up.
            reconnect_timeout=5.0,
            kwargs={"autocommit": True},
            connection_class=self._telling_connection(),
            # One that the server has closed meanwhile is not given to anybody.
            check=ConnectionPool.check_connection,
            open=True,
        )

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for the block. Raises psycopg.OperationalError when the server cannot be reached, at
        once, or PoolTimeout (one of them) when none was free in time.
        """
        connection = self._get()
        try:
            yield connection
        finally:
            self._pool.putconn(connection)

    def close(self) -> None:
        """End all connections."""
        self._pool.close()

    def _get(self) -> Connection:
        begun = time.monotonic()
        while True:
            try:
                return self._pool.getconn(_LOOK_SECONDS)
            except PoolTimeout:
                # The pool itself would try and wait on, and the page with it.
                if self._failed_at > begun:
                    raise psycopg.OperationalError(self._failure) from None
                if time.monotonic() - begun > self._wait:
                    raise

    def _telling_connection(self) -> type[Connection]:
        pool = self

        class Telling(psycopg.Connection[tuple[Any, ...]]):
            """Tells the pool why it could not be made, which the pool's own threads keep to themselves."""

            @classmethod
            def connect(cls, *args: Any, **kwargs: Any) -> Any:
                try:
                    return super().connect(*args, **kwargs)
                except psycopg.Error as error:
                    pool._failure, pool._failed_at = str(error), time.monotonic()
                    raise

        return Telling
