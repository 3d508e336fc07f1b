"""What a lock's row says.

Law: a `LockInfo` is a picture of one instant of the database's clock; it grants nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from agentflow.locks.keys import owner_of

__all__ = ["LockInfo", "instant"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class LockInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lock, since when, until when, and with which token.

    Attributes
    ----------
    key, owner : str
        The lock and the name of who holds it.
    token : int
        The fencing token: larger than that of every earlier lease of this key.
    acquired_at, expires_at : datetime
        In UTC, by the database's clock.
    metadata : Any
        What the holder left beside the lock.
    remaining_s : float
        Seconds of the lease left when the row was read, by the database's clock.
    holder : str
        The name of this one acquisition, as the table's `owner` column has it.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> LockInfo(key="etl", owner="w1", token=7, acquired_at=noon, expires_at=noon, holder="w1/41/c0ffee").token
    7
    """

    key: str
    owner: str
    token: int
    acquired_at: datetime
    expires_at: datetime
    metadata: Any = None
    remaining_s: float = 0.0
    holder: str = ""


def instant(micros: int) -> datetime:
    """A UTC datetime from microseconds since 1970, without the rounding of floats.

    Examples
    --------
    >>> instant(1_000_001).isoformat()
    '1970-01-01T00:00:01.000001+00:00'
    """
    return EPOCH + timedelta(microseconds=micros)


def info_of(
    key: str, holder: str, token: int, acquired_us: int, expires_us: int, remaining_us: int, metadata: Any
) -> LockInfo:
    """A `LockInfo` from one row as every dialect returns it."""
    return LockInfo(
        key=key,
        owner=owner_of(holder),
        token=token,
        acquired_at=instant(acquired_us),
        expires_at=instant(expires_us),
        metadata=metadata,
        remaining_s=remaining_us / 1e6,
        holder=holder,
    )
