"""The names of things on the wire and in the log.

Ids come from counters and from users, never from uuid, `hash` or the order of a set: two runs of one
seed must name everything alike.
"""

from __future__ import annotations

from typing import TypeAlias

NodeId: TypeAlias = str
"""A node on the network: `master-1`, `worker-3`, `agent-a`."""

Term: TypeAlias = int
"""A Raft term; terms number elections and never go back."""

Index: TypeAlias = int
"""A position in the Raft log; the first entry has index 1."""

RunId: TypeAlias = str
"""One execution of a workflow: `run-1`."""

TaskId: TypeAlias = str
"""A task's name within its workflow."""

AttemptId: TypeAlias = int
"""One try at a task, numbered across the whole cluster; it fences late completions."""
