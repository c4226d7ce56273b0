"""The vendor's anonymous session, obtained by one process and used by all, on every host."""

from __future__ import annotations

import json
import time
from datetime import timedelta

from include.mltrading.market.yahoo import VendorSession
from include.mltrading.store.connection import Connection
from include.mltrading.store.queries import query

# Time for one process to obtain a session; after it the next one tries.
_LEASE = timedelta(seconds=60)
_POLL = 0.1


class SharedSession:
    """The session with one server, kept in the market database; see `yahoo.SessionStore`."""

    def __init__(self, connection: Connection, server: str) -> None:
        self._connection = connection
        self._server = {"server": server}

    def load(self) -> VendorSession | None:
        """The session; None where the caller shall obtain one, while all others wait for it."""
        while True:
            row = self._connection.execute(query("select_vendor_session"), self._server).fetchone()
            if row:
                return VendorSession(tuple(row[0]), row[1], row[2])
            if self._connection.execute(
                query("lease_vendor_session"), {**self._server, "lease": _LEASE}
            ).fetchone():
                return None
            time.sleep(_POLL)

    def save(self, session: VendorSession) -> None:
        """Share what the caller has obtained."""
        self._connection.execute(
            query("save_vendor_session"),
            {**self._server, "cookies": json.dumps(session.cookies), "crumb": session.crumb},
        )

    def abandon(self) -> None:
        """The caller could not obtain a session."""
        self._connection.execute(query("abandon_vendor_session"), self._server)

    def discard(self, session: VendorSession) -> None:
        """The vendor refused the session: the next `load` obtains another."""
        self._connection.execute(
            query("discard_vendor_session"), {**self._server, "obtained_at": session.obtained_at}
        )
