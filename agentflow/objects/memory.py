"""Values by reference, in this process: nothing is pickled, and nothing needs to be picklable.

Law: what one task does to a DataFrame in place is seen by no other. With pandas' copy-on-write a shallow
copy is enough for that, so each put and each get makes one. Other values are handed out as they are.
"""

from __future__ import annotations

import threading
from typing import Any

from agentflow.errors import ObjectLost
from agentflow.objects.base import Key, StoreStats
from agentflow.objects.sizes import is_pandas, size_bytes

_LOOKED_AT = 64


class MemoryStore:
    """A store that lasts as long as this object.

    Examples
    --------
    >>> store = MemoryStore()
    >>> _ = store.put(("run-1", "load"), [1, 2, 3])
    >>> store.get(("run-1", "load"))
    [1, 2, 3]
    >>> store.delete(("run-1", "load")), ("run-1", "load") in store
    (True, False)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Key, tuple[Any, int, bool]] = {}
        self._bytes = self._puts = self._gets = self._deletes = self._lost = 0

    def __repr__(self) -> str:
        return f"<MemoryStore: {len(self._values)} values, {self._bytes:,} bytes>"

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def put(self, key: Key, value: Any, size: int | None = None) -> int:
        """Keep a value; return its size in bytes, estimated unless given."""
        if size is None:
            size = size_bytes(value)
        has_frames = _has_frames(value)
        if has_frames:
            value = _own(value)
        with self._lock:
            before = self._values.get(key)
            self._values[key] = (value, size, has_frames)
            self._bytes += size - (before[1] if before is not None else 0)
            self._puts += 1
        # `before` is dropped here, outside the lock: its end may run any code.
        return size

    def get(self, key: Key) -> Any:
        """Return the value, a DataFrame as a shallow copy."""
        with self._lock:
            kept = self._values.get(key)
            if kept is None:
                self._lost += 1
            else:
                self._gets += 1
        if kept is None:
            raise ObjectLost(
                f"the value of {_shown(key)} is not in the store; run what made it again", key=key
            )
        return _own(kept[0]) if kept[2] else kept[0]

    def delete(self, key: Key) -> bool:
        """Forget the value; return whether there was one."""
        with self._lock:
            before = self._values.pop(key, None)
            if before is not None:
                self._bytes -= before[1]
                self._deletes += 1
        return before is not None

    def size(self, key: Key) -> int:
        """Return the size of one value; raise `ObjectLost` if it is not there."""
        kept = self._values.get(key)
        if kept is None:
            raise ObjectLost(
                f"the value of {_shown(key)} is not in the store; run what made it again", key=key
            )
        return kept[1]

    def stats(self) -> StoreStats:
        """Return counts and sizes."""
        with self._lock:
            return StoreStats(
                count=len(self._values),
                bytes=self._bytes,
                puts=self._puts,
                gets=self._gets,
                deletes=self._deletes,
                lost=self._lost,
            )


def _has_frames(value: Any) -> bool:
    """Tell whether it is a pandas object, or a small list, tuple or dict of some."""
    if type(value) in (list, tuple) and len(value) <= _LOOKED_AT:
        return any(is_pandas(item) for item in value)
    if type(value) is dict and len(value) <= _LOOKED_AT:
        return any(is_pandas(item) for item in list(value.values()))
    return is_pandas(value)


def _own(value: Any) -> Any:
    """Return the value with pandas objects of the caller's own."""
    if type(value) is dict:
        return {key: _own_frame(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_own_frame(item) for item in value)
    return _own_frame(value)


def _own_frame(value: Any) -> Any:
    return value.copy(deep=False) if is_pandas(value) else value


def _shown(key: Key) -> str:
    return key if isinstance(key, str) else " ".join(str(part) for part in key)
