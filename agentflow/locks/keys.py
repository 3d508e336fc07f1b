"""What may name a lock, an owner and a duration, and what may be written beside them.

Law: two keys are the same lock only if their UTF-8 bytes are the same; what a database could not store
faithfully is refused here, before anything is sent.
"""

from __future__ import annotations

import json
import math
import os
from datetime import timedelta
from typing import Any, Final

from agentflow.errors import InvalidConfig

__all__ = [
    "KEY_BYTES",
    "OWNER_BYTES",
    "checked_key",
    "checked_metadata",
    "checked_owner",
    "holder_name",
    "owner_of",
    "seconds",
]

KEY_BYTES: Final = 255
OWNER_BYTES: Final = 190
METADATA_BYTES: Final = 60_000
LONGEST_S: Final = 366 * 86_400.0
SHORTEST_LEASE_S: Final = 0.1


def checked_key(key: str) -> str:
    """The key itself, if it can name a lock.

    Parameters
    ----------
    key : str
        1 to 255 bytes of UTF-8. Case, trailing blanks and the way an accent is composed all count.

    Raises
    ------
    InvalidConfig
        If it is not text, empty, too long, or holds what no database stores (NUL, half a surrogate pair).

    Examples
    --------
    >>> checked_key("nächtlicher Lauf")
    'nächtlicher Lauf'
    >>> checked_key("")
    Traceback (most recent call last):
    agentflow.errors.InvalidConfig: a lock's key is empty; name what it protects, for example 'etl'
    """
    _text("a lock's key", key, "key")
    if not key:
        raise InvalidConfig(
            "a lock's key is empty; name what it protects, for example 'etl'", field="key", value=key
        )
    _fits("a lock's key", key, KEY_BYTES, "key")
    return key


def checked_owner(owner: str) -> str:
    """The owner's name itself, if it can be stored.

    Examples
    --------
    >>> checked_owner("w1")
    'w1'
    """
    _text("an owner's name", owner, "owner")
    if not owner.strip():
        raise InvalidConfig("an owner's name is empty; say who holds the lock", field="owner", value=owner)
    _fits("an owner's name", owner, OWNER_BYTES, "owner")
    return owner


def holder_name(owner: str) -> str:
    """A name that this one acquisition has and no other ever had: `owner/pid/nonce`.

    The nonce is what lets a retry after a lost reply find its own lock, and what keeps an owner of the same name,
    or the same owner later, from renewing or releasing it.

    Examples
    --------
    >>> owner_of(holder_name("a/b"))
    'a/b'
    """
    return f"{owner}/{os.getpid()}/{os.urandom(16).hex()}"


def owner_of(holder: str) -> str:
    """The owner's name within a holder's; text that is no holder's name is returned as it is."""
    parts = holder.rsplit("/", 2)
    return parts[0] if len(parts) == 3 else holder


def checked_metadata(metadata: Any) -> str | None:
    """Metadata as JSON text, or None.

    Examples
    --------
    >>> checked_metadata({"job": 7})
    '{"job": 7}'
    """
    if metadata is None:
        return None
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidConfig(
            f"metadata of a lock is stored as JSON, and this is none ({error}); pass plain values",
            field="metadata",
        ) from error
    if size > METADATA_BYTES:
        raise InvalidConfig(
            f"metadata of a lock has {size} bytes; {METADATA_BYTES} fit, keep the rest elsewhere",
            field="metadata",
        )
    return text


def seconds(value: timedelta | float, field: str, *, shortest: float = 0.0) -> float:
    """A duration in seconds.

    Parameters
    ----------
    value : timedelta or float
        The duration, or its seconds.
    field : str
        The argument's name, for the error.
    shortest : float
        Durations below this are refused.

    Examples
    --------
    >>> seconds(timedelta(minutes=2), "ttl_secs"), seconds(0.5, "ttl_secs")
    (120.0, 0.5)
    """
    if isinstance(value, bool) or not isinstance(value, timedelta | int | float):
        raise InvalidConfig(f"{field} is {value!r}; give seconds or a timedelta", field=field, value=value)
    span = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not math.isfinite(span) or not shortest <= span <= LONGEST_S:
        raise InvalidConfig(
            f"{field} is {span} s; it must lie between {shortest} s and {LONGEST_S:.0f} s (a year)",
            field=field,
            value=value,
        )
    return span


def _text(subject: str, value: object, field: str) -> None:
    if not isinstance(value, str):
        raise InvalidConfig(f"{subject} is {value!r}; it must be text", field=field, value=value)
    if "\0" in value:
        raise InvalidConfig(f"{subject} holds a NUL, which no database stores", field=field, value=value)


def _fits(subject: str, value: str, limit: int, field: str) -> None:
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidConfig(
            f"{subject} holds half a surrogate pair and has no UTF-8 form", field=field, value=value
        ) from error
    if size > limit:
        raise InvalidConfig(
            f"{subject} has {size} bytes of UTF-8; {limit} fit. Shorten it, or use a digest of it",
            field=field,
            value=value,
        )
