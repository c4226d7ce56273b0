"""`make docs`: write the reference pages of docs/ anew. The dictionary is read from a database of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from include.mltrading.configuration.settings import PROJECT_ROOT, Settings
from include.mltrading.store.connection import connect
from include.mltrading.store.migrations import migrate
from include.reference import commands, configuration, dictionary, features
from include.standalone.postgres import EmbeddedPostgres


def main() -> None:
    """Write the pages that have changed, and name them."""
    pages = {
        "commands.md": commands.render(),
        "configuration.md": configuration.render(),
        "data-dictionary.md": _dictionary(),
        "features.md": features.render(),
    }
    for name, text in pages.items():
        path = PROJECT_ROOT / "docs" / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote docs/{name}")


def _dictionary() -> str:
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedPostgres(Path(folder), report=lambda line: None)
        try:
            with server, connect(Settings(database_url=server.ensure_database("docs"))) as connection:
                migrate(connection)
                return dictionary.render(connection)
        finally:
            server.remove()


if __name__ == "__main__":
    main()
