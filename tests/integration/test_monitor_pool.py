"""The connections the monitor reads with: few, short, and replaced when they fail."""

from __future__ import annotations

import os
import signal

import psycopg
import pytest

from include.mltrading.store.pool import ReadPool, SlowDatabaseError

pytestmark = pytest.mark.integration


def test_a_look_that_takes_too_long_is_cut_and_not_repeated_at_once(database: str) -> None:
    pool = ReadPool(database, answer=2.1)
    try:
        with pytest.raises(SlowDatabaseError, match="no answer within 2"), pool.connection() as connection:
            connection.execute("SELECT pg_sleep(60)")
        entered = False
        with pytest.raises(SlowDatabaseError, match="no answer within 2"), pool.connection():
            entered = True
        assert not entered
    finally:
        pool.close()


def test_a_connection_that_hangs_is_replaced(database: str) -> None:
    pool = ReadPool(database)
    with pool.connection() as first:
        pid = first.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with pool.connection() as second:
            assert second.info.backend_pid != pid
    finally:
        os.kill(pid, signal.SIGCONT)
        pool.close()


def test_the_pool_is_bounded_and_takes_its_connections_back(database: str) -> None:
    pool = ReadPool(database, most=2, wait=1.0)
    try:
        with pool.connection() as one, pool.connection():
            pid = one.info.backend_pid
            with (
                pytest.raises(psycopg.OperationalError, match="couldn't get a connection"),
                pool.connection(),
            ):
                pass
        pids = set()
        for _ in range(5):
            with pool.connection() as again:
                pids.add(again.info.backend_pid)
        assert pid in pids
        assert len(pids) <= 2
    finally:
        pool.close()


def test_a_connection_that_the_server_ended_is_replaced(database: str) -> None:
    pool = ReadPool(database)
    try:
        with pool.connection() as first, psycopg.connect(database, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (first.info.backend_pid,))
        with pool.connection() as second:
            assert second.execute("SELECT 1").fetchone() == (1,)
    finally:
        pool.close()


def test_a_server_that_is_away_is_told_without_the_long_wait(database: str) -> None:
    nobody = database.rpartition("/")[0].rpartition("@")[0] + "@127.0.0.1:1/none"
    pool = ReadPool(nobody)
    try:
        # Not the pool's own words, which come after half a minute.
        with pytest.raises(psycopg.OperationalError, match="refused"), pool.connection():
            pass
    finally:
        pool.close()
