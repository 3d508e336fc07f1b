"""Values of two runs with a common past.

Law: what one puts or deletes, the other does not notice.
"""

from __future__ import annotations

from typing import Any

from agentflow.errors import ObjectLost
from agentflow.objects.base import Key, ObjectStore, StoreStats
from agentflow.objects.memory import MemoryStore


class Overlay:
    """A store over another one, which is only read.

    Examples
    --------
    >>> below = MemoryStore()
    >>> _ = below.put("x", 1)
    >>> above = Overlay(below)
    >>> _ = above.put("y", 2)
    >>> above.delete("x"), "x" in above, "x" in below, "y" in below
    (True, False, True, False)
    """

    def __init__(self, below: ObjectStore) -> None:
        self._below = below
        self._own = MemoryStore()
        self._deleted: set[Key] = set()

    def put(self, key: Key, value: Any, size: int | None = None) -> int:
        """Keep a value; return its size in bytes."""
        self._deleted.discard(key)
        return self._own.put(key, value, size)

    def get(self, key: Key) -> Any:
        """Return the value; raise `ObjectLost` if it is not there."""
        if key in self._own or key in self._deleted:
            return self._own.get(key)
        return self._below.get(key)

    def delete(self, key: Key) -> bool:
        """Forget the value; return whether there was one."""
        there = key in self
        self._own.delete(key)
        self._deleted.add(key)
        return there

    def size(self, key: Key) -> int:
        """Return the size of one value; raise `ObjectLost` if it is not there."""
        sized = self._own if key in self._own else self._below
        if key not in self or not hasattr(sized, "size"):
            raise ObjectLost(f"the value of {key!r} is not in the store", key=key)
        return int(sized.size(key))

    def __contains__(self, key: Key) -> bool:
        return key in self._own or (key not in self._deleted and key in self._below)

    def stats(self) -> StoreStats:
        """Return counts and sizes of what was put here."""
        return self._own.stats()
