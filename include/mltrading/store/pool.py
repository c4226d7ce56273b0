"""A few connections that a long-lived process shares; only the web server is one."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from include.mltrading.store.connection import Connection

MOST_CONNECTIONS = 10
WAIT_SECONDS = 30.0
ANSWER_SECONDS = 8.0
_CHECK_SECONDS = 2.0
_SLOW_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 30.0
_LIFE_SECONDS = 3600.0
_IDLE_SECONDS = 120.0
_LOOK_SECONDS = 0.5


class SlowDatabaseError(psycopg.OperationalError):
    """The server is there and gave no answer in time."""


class ReadPool:
    """At most 10 connections, made when they are needed, for an hour each; who finds none free waits 30 s.

    A server that is slow or hangs does not take its clients with it: whatever is done with a connection ends
    after 8 s, and after a failure that took long nobody asks again for three times as long (30 s at most), so
    that waiting for the database takes a quarter of a process's time at worst.

    conninfo: libpq's connection string. Not to be shared over a fork: make it in the process that uses it.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        most: int = MOST_CONNECTIONS,
        wait: float = WAIT_SECONDS,
        answer: float = ANSWER_SECONDS,
    ) -> None:
        self._wait, self._answer = wait, answer
        self._pause_until, self._reason = float("-inf"), psycopg.Error()
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
            check=_check,
            open=True,
        )

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection for the block. Raises psycopg.OperationalError when the server cannot be reached, at
        once, PoolTimeout (one of them) when none was free in time, and SlowDatabaseError (another) when the
        block's queries took too long.
        """
        if time.monotonic() < self._pause_until:
            raise type(self._reason)(str(self._reason))
        begun = time.monotonic()
        try:
            connection = self._get()
            begun_block = time.monotonic()
            try:
                with _deadline(connection, self._answer):
                    yield connection
            except psycopg.OperationalError as error:
                if time.monotonic() - begun_block < self._answer:
                    raise
                raise SlowDatabaseError(f"no answer within {self._answer:g} s") from error
            finally:
                self._pool.putconn(connection)
        except PoolTimeout:
            raise
        except psycopg.Error as error:
            took = time.monotonic() - begun
            if took > _SLOW_SECONDS:
                self._reason = error
                self._pause_until = time.monotonic() + min(3 * took, _LONGEST_PAUSE_SECONDS)
            raise

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


@contextmanager
def _deadline(connection: Connection, seconds: float) -> Iterator[None]:
    """Cut the connection when the block takes longer.

    The server's own statement time-out does not help against a server that hangs, or against many statements.
    """
    cutter = threading.Timer(seconds, _cut, [connection])
    cutter.daemon = True
    cutter.start()
    try:
        yield
    finally:
        cutter.cancel()


def _cut(connection: Connection) -> None:
    """Whoever waits for the server's answer gets an OperationalError."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def _check(connection: Connection) -> None:
    with _deadline(connection, _CHECK_SECONDS):
        ConnectionPool.check_connection(connection)
