"""numpy arrays as PostgreSQL arrays and as rows of COPY, at the speed of a memory copy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import pq
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader

from include.mltrading.store.connection import Connection

_FLOAT8, _FLOAT8_ARRAY, _TIMESTAMPTZ_ARRAY = 701, 1022, 1185
# PostgreSQL counts microseconds from here.
_EPOCH = np.datetime64("2000-01-01", "us")
_FLOAT8_ELEMENT = np.dtype([("length", ">i4"), ("value", ">f8")])
_TIMESTAMPTZ_ELEMENT = np.dtype([("length", ">i4"), ("value", ">i8")])
# Signature, flags, length of the header extension; see "Binary Format" in PostgreSQL's page on COPY.
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_COPY_TRAILER = struct.pack(">h", -1)
_COPY_PIECE = 250  # rows

Starts = NDArray[np.datetime64]
"""Starts of bars: UTC, microseconds (datetime64[us])."""


def as_start(moment: datetime) -> np.datetime64:
    """An aware datetime as an element of Starts."""
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def as_instants(starts: Starts) -> list[datetime]:
    """Starts as aware datetimes."""
    return [moment.replace(tzinfo=UTC) for moment in starts.tolist()]


class Float8ArrayDumper(Dumper):
    """A 1-D float64 array as float8[], in the binary format that array_send() documents."""

    format = pq.Format.BINARY
    oid = _FLOAT8_ARRAY

    def dump(self, obj: Any) -> bytes:
        elements = np.empty(len(obj), dtype=_FLOAT8_ELEMENT)
        elements["length"] = 8
        elements["value"] = obj
        # dimensions, has nulls, element type, length, lower bound
        return struct.pack(">iiIii", 1, 0, _FLOAT8, len(obj), 1) + elements.tobytes()


class Float8ArrayLoader(Loader):
    """float8[] of any dimensions, without a NULL, as a float64 array of that shape."""

    format = pq.Format.BINARY

    def load(self, data: Buffer) -> NDArray[np.float64]:
        shape, elements = _elements(data, _FLOAT8_ELEMENT)
        return elements["value"].astype(np.float64).reshape(shape)


class TimestamptzArrayLoader(Loader):
    """timestamptz[], without a NULL, as datetime64[us] in UTC."""

    format = pq.Format.BINARY

    def load(self, data: Buffer) -> Starts:
        shape, elements = _elements(data, _TIMESTAMPTZ_ELEMENT)
        return (_EPOCH + elements["value"].astype("timedelta64[us]")).reshape(shape)


def _elements(data: Buffer, element: np.dtype[Any]) -> tuple[list[int], NDArray[Any]]:
    dimensions, has_nulls = struct.unpack_from(">ii", data)
    if has_nulls:
        raise ValueError("an array with NULLs does not fit an array of numbers: coalesce them in the query")
    shape = [struct.unpack_from(">i", data, 12 + 8 * i)[0] for i in range(dimensions)]
    return shape or [0], np.frombuffer(data, element, offset=12 + 8 * dimensions)


def accept_arrays(connection: Connection) -> None:
    """Let numpy arrays be parameters of the connection's statements, and results of its binary cursors."""
    connection.adapters.register_dumper(np.ndarray, Float8ArrayDumper)
    connection.adapters.register_loader(_FLOAT8_ARRAY, Float8ArrayLoader)
    connection.adapters.register_loader(_TIMESTAMPTZ_ARRAY, TimestamptzArrayLoader)


def copy_rows(first: str, starts: Starts, values: NDArray[np.float64], last: str) -> Iterator[bytes]:
    """Rows of (text, timestamptz, m times float8, text) for COPY ... FROM STDIN (FORMAT binary), in pieces.

    first, last: the same in each row. starts: shape (n,). values: shape (n, m), NaN becomes NULL.
    """
    head, tail = first.encode(), last.encode()
    width = values.shape[1]
    row = np.dtype(
        [
            ("fields", ">i2"),
            ("head_length", ">i4"),
            ("head", f"V{len(head)}"),
            ("start", _TIMESTAMPTZ_ELEMENT),
            ("values", _FLOAT8_ELEMENT, (width,)),
            ("tail_length", ">i4"),
            ("tail", f"V{len(tail)}"),
        ]
    )
    before_values = 2 + 4 + len(head) + _TIMESTAMPTZ_ELEMENT.itemsize
    # In pieces, because new pages of memory cost a short-lived process more than the arithmetic does.
    rows = np.empty(min(len(starts), _COPY_PIECE), dtype=row)
    rows["fields"] = width + 3
    rows["head_length"], rows["head"] = len(head), np.void(head)
    rows["start"]["length"] = 8
    rows["tail_length"], rows["tail"] = len(tail), np.void(tail)
    moments = (starts - _EPOCH).astype(np.int64)
    yield _COPY_HEADER
    for begin in range(0, len(starts), _COPY_PIECE):
        piece = values[begin : begin + _COPY_PIECE]
        rows = rows[: len(piece)]
        rows["start"]["value"] = moments[begin : begin + _COPY_PIECE]
        rows["values"]["length"], rows["values"]["value"] = 8, piece
        undefined = np.isnan(piece)
        yield _without(rows, undefined, before_values) if undefined.any() else rows.tobytes()
    yield _COPY_TRAILER


def _without(rows: NDArray[np.void], undefined: NDArray[np.bool_], begin: int) -> bytes:
    """The bytes of rows whose undefined values are NULL: the length -1 and no value, eight bytes fewer.

    begin: at which byte of a row its values begin.
    """
    rows["values"]["length"][undefined] = -1
    present = np.ones((len(rows), rows.itemsize), dtype=bool)
    fields = present[:, begin : begin + undefined.shape[1] * _FLOAT8_ELEMENT.itemsize]
    fields.reshape(*undefined.shape, _FLOAT8_ELEMENT.itemsize)[:, :, 4:] = ~undefined[:, :, None]
    return rows.view(np.uint8).reshape(present.shape)[present].tobytes()
