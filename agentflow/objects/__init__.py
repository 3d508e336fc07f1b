"""Where values wait: functions, arguments and results, which never enter the log."""

from agentflow.objects.base import Key, ObjectStore, StoreStats
from agentflow.objects.memory import MemoryStore
from agentflow.objects.sizes import size_bytes

__all__ = ["Key", "MemoryStore", "ObjectStore", "StoreStats", "size_bytes"]
