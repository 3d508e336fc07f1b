"""How large a value is, roughly and quickly.

Law: it costs microseconds for any value, never raises, and runs no code of the value's that could take
long. Large containers are judged by a sample of their items; what several values share is counted for each.
"""

from __future__ import annotations

import sys
from collections import deque
from itertools import islice
from typing import Any

_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, range})
_SAMPLE = 16
_DEPTH = 4


def size_bytes(value: Any) -> int:
    """Estimate the memory that a value holds.

    Examples
    --------
    >>> size_bytes(b"x" * 1000) - size_bytes(b"")
    1000
    >>> 1_000_000 < size_bytes([bytes(1000)] * 1000) < 1_100_000
    True
    """
    try:
        return _size(value, _DEPTH)
    except Exception:
        return _shallow(value)


def is_pandas(value: Any) -> bool:
    """Tell whether a value is a DataFrame or a Series, without importing pandas for it."""
    if type(value) in _ATOMS:
        return False
    # Another thread may be in the middle of importing it: then no such value can exist yet.
    pandas = sys.modules.get("pandas")
    kinds: Any = (getattr(pandas, "DataFrame", None), getattr(pandas, "Series", None))
    return None not in kinds and isinstance(value, kinds)


def _size(value: Any, depth: int) -> int:
    kind = type(value)
    if kind in _ATOMS:
        return sys.getsizeof(value)
    if kind in (list, tuple, set, frozenset, deque):
        return sys.getsizeof(value) + _sampled(value, len(value), depth)
    if kind is dict:
        keys = _sampled(value.keys(), len(value), depth)
        return sys.getsizeof(value) + keys + _sampled(value.values(), len(value), depth)
    if is_pandas(value):
        return _pandas_size(value)
    # NumPy, Arrow, Polars (a method there), memoryview: their own word on what they hold.
    held = getattr(value, "nbytes", None)
    if isinstance(held, int) and not isinstance(held, bool) and held >= 0:
        return max(held, _shallow(value))
    attributes = getattr(value, "__dict__", None)
    if type(attributes) is dict and depth and not isinstance(value, type) and not callable(value):
        return _shallow(value) + _size(attributes, depth - 1)
    return _shallow(value)


def _sampled(items: Any, count: int, depth: int) -> int:
    if not count or not depth:
        return 0
    # Fewer the deeper it goes, so that nested containers stay cheap.
    sample = list(islice(items, _SAMPLE >> (_DEPTH - depth) or 1))
    return sum(_size(item, depth - 1) for item in sample) * count // len(sample)


def _pandas_size(value: Any) -> int:
    """Add up columns of fixed width by their type, and ask a few of the others; `memory_usage` asks all."""
    total = int(value.index.nbytes)
    if len(value.shape) == 1:
        return total + _column_size(value)
    rows, others = value.shape[0], []
    for position, dtype in enumerate(value.dtypes):
        if dtype.kind in "biufcmM" and isinstance(getattr(dtype, "itemsize", None), int):
            total += rows * dtype.itemsize
        else:
            others.append(position)
    asked = [_column_size(value.iloc[:, position]) for position in others[:_SAMPLE]]
    return total + (sum(asked) * len(others) // len(asked) if asked else 0)


def _column_size(column: Any) -> int:
    size = int(column.nbytes)
    if column.dtype == object and len(column):
        sample = column.iloc[:_SAMPLE]
        size += sum(_size(item, 0) for item in sample) * len(column) // len(sample)
    return size


def _shallow(value: Any) -> int:
    try:
        return sys.getsizeof(value)
    except Exception:
        return 0
