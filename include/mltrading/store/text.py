"""Text from outside, as PostgreSQL can store it."""

from __future__ import annotations

from typing import Any


def storable(value: Any) -> Any:
    """A text, or a JSON document of texts, with a sign in place of what PostgreSQL cannot hold.

    Which is NUL, and half of a surrogate pair. An error that quotes what a server sent may have them.
    """
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode(errors="replace").decode()
    if isinstance(value, dict):
        return {name: storable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value
