"""How often a connection waits for the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from include.mltrading.store.connection import Connection


@contextmanager
def counted(connection: Connection, folder: Path) -> Iterator[list[int]]:
    """Yields a list, whose only element is then how many round trips there were."""
    path, found = folder / "trace", list[int]()
    with path.open("w") as file:
        connection.pgconn.trace(file.fileno())
        yield found
        connection.pgconn.untrace()
    # One for each time that the server is ready again, and one in the middle of a COPY.
    answers = [line.split("\t")[3] for line in path.read_text().splitlines() if "\tB\t" in line]
    found.append(answers.count("ReadyForQuery") + answers.count("CopyInResponse"))
