"""numpy arrays as PostgreSQL arrays, at the speed of a memory copy."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from psycopg import pq
from psycopg.adapt import Dumper

from include.mltrading.store.connection import Connection

_FLOAT8, _FLOAT8_ARRAY = 701, 1022
_ELEMENT = np.dtype([("length", ">i4"), ("value", ">f8")])


class Float8ArrayDumper(Dumper):
    """A 1-D float64 array as float8[], in the binary format that array_send() documents."""

    format = pq.Format.BINARY
    oid = _FLOAT8_ARRAY

    def dump(self, obj: Any) -> bytes:
        elements = np.empty(len(obj), dtype=_ELEMENT)
        elements["length"] = 8
        elements["value"] = obj
        # dimensions, has nulls, element type, length, lower bound
        return struct.pack(">iiIii", 1, 0, _FLOAT8, len(obj), 1) + elements.tobytes()


def accept_arrays(connection: Connection) -> None:
    """Let numpy arrays be parameters of the connection's statements."""
    connection.adapters.register_dumper(np.ndarray, Float8ArrayDumper)
