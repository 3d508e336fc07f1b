"""What may be asked of a store of values.

Law: what a store hands out is what was put in, or it raises `ObjectLost`. It never answers with None for
a value that it does not hold: None is a value.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

Key: TypeAlias = str | tuple[str | int, ...]


class StoreStats(msgspec.Struct, frozen=True):
    """What a store holds and has done."""

    count: int = 0
    bytes: int = 0
    puts: int = 0
    gets: int = 0
    deletes: int = 0
    lost: int = 0
    """Times that a value was asked for and was not there."""


@runtime_checkable
class ObjectStore(Protocol):
    """A store of values. Any thread may call it."""

    def put(self, key: Key, value: Any, size: int | None = None) -> int:
        """Keep a value, in the place of the one under this key; return its size in bytes, measured or given."""
        ...

    def get(self, key: Key) -> Any:
        """Return the value; raise `ObjectLost` if it is not there."""
        ...

    def delete(self, key: Key) -> bool:
        """Forget the value; return whether there was one."""
        ...

    def __contains__(self, key: Key) -> bool: ...

    def stats(self) -> StoreStats:
        """Return counts and sizes."""
        ...
