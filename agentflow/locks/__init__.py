"""Locks that several processes share through a database, and that say so when they are lost.

Law: of one key's leases no two overlap in the database's time, and every lease has a larger token than the one
before it. Nothing here imports SQLAlchemy until a lock is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentflow.locks.autorenew import AutoRenewLock
    from agentflow.locks.blocking import BlockingLock, hold_all
    from agentflow.locks.fenced import FencedFile, FencedResource, FencedTable
    from agentflow.locks.info import LockInfo
    from agentflow.locks.lock import DistributedLock, LockTable

__all__ = [
    "AutoRenewLock",
    "BlockingLock",
    "DistributedLock",
    "FencedFile",
    "FencedResource",
    "FencedTable",
    "LockInfo",
    "LockTable",
    "hold_all",
]

_HOMES = {
    "AutoRenewLock": "autorenew",
    "BlockingLock": "blocking",
    "DistributedLock": "lock",
    "FencedFile": "fenced",
    "FencedResource": "fenced",
    "FencedTable": "fenced",
    "LockInfo": "info",
    "LockTable": "lock",
    "hold_all": "blocking",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
