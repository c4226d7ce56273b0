"""The vendor's anonymous session, obtained by one process and used by all, on every host."""

from __future__ import annotations

import json
import time

from include.mltrading.errors import PostponedError
from include.mltrading.market.yahoo import VendorSession
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query

_POLL = 0.1


class SharedSession:
    """The session with one server, kept in the market database; see `yahoo.SessionStore`.

    deadline: time.monotonic() until which waiting for another process makes sense.
    """

    def __init__(self, connection: Connection, server: str, deadline: float = float("inf")) -> None:
        self._connection = connection
        self._server = {"server": server}
        self._deadline = deadline

    def load(self) -> VendorSession | None:
        """The session; None where the caller shall obtain one, while all others wait for it.

        Who obtains one and dies holds up nobody. Raises PostponedError when the wait outlasts the deadline.
        """
        while True:
            session = self._stored()
            if session is None and self._lease():
                # Somebody may have obtained one between the two questions.
                session = self._stored()
                if session is None:
                    return None
                self._release()
            if session is not None:
                return session
            if time.monotonic() > self._deadline:
                raise PostponedError(
                    f"another process has not yet obtained a session with {self._server['server']}, and "
                    "this task has no time left; run it again (Airflow does)"
                )
            time.sleep(_POLL)

    def save(self, session: VendorSession) -> None:
        """Share what the caller has obtained."""
        try:
            self._connection.execute(
                query("vendor/save_vendor_session"),
                {**self._server, "cookies": json.dumps(session.cookies), "crumb": session.crumb},
            )
        finally:
            self._release()

    def abandon(self) -> None:
        """The caller could not obtain a session."""
        self._release()

    def discard(self, session: VendorSession) -> None:
        """The vendor refused the session: the next `load` obtains another."""
        self._connection.execute(
            query("vendor/discard_vendor_session"), {**self._server, "obtained_at": session.obtained_at}
        )

    def _stored(self) -> VendorSession | None:
        row = self._connection.execute(query("vendor/select_vendor_session"), self._server).fetchone()
        return None if row is None else VendorSession(tuple(row[0]), row[1], row[2])

    def _lease(self) -> bool:
        row = self._connection.execute(query("vendor/lease_vendor_session"), self._server).fetchone()
        return row is not None and bool(row[0])

    def _release(self) -> None:
        if not self._connection.closed:  # its locks ended with it
            self._connection.execute(query("vendor/release_vendor_session"), self._server)
