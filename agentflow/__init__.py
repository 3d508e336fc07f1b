"""agentflow: a cluster you can hold in a notebook.

The package from the bottom up; imports point down:

* `errors`, `ids`: what can go wrong, and the names of things.
* `views`, `rows`: how an object finds its pictures, and tables without pandas.
* `core`: pure machines. Raft, the control plane under it, scheduling, agents. Time is an argument.
* `check`: judges over traces and histories.
* `transport`, `storage`, `executors`, `objects`, `locks`: what touches the world, each with a fake.
* `runtime`: the host that performs effects, real time and virtual time, the trace.
* `cluster`: what a person holds: `Cluster`, `Simulation`, `Run`, the tables.
* `labs`, `notebook`, `cli`: work to try, what people see, the command line.

Names are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.4.0"

_HOME = {
    "agentflow.cluster.agents": (
        "AgentCommunication",
        "AgentMessage",
        "AgentStats",
        "DeadLetter",
        "MessageType",
    ),
    "agentflow.cluster.calls": ("Missing",),
    "agentflow.cluster.cluster": ("Cluster", "LeftRunning"),
    "agentflow.cluster.current": ("CurrentTask", "current_task"),
    "agentflow.cluster.loops": ("allow_nested_loops", "run_sync"),
    "agentflow.cluster.raftnode": ("Committed", "RaftNode", "VoteRequest", "VoteResponse"),
    "agentflow.cluster.run": ("Run",),
    "agentflow.cluster.settings": ("EvenMasters",),
    "agentflow.cluster.simulating.compare": ("diff",),
    "agentflow.cluster.simulating.sweeping": ("sweep",),
    "agentflow.cluster.simulating.workloads": ("KeyValueLoad", "MembershipLoad", "WorkflowLoad"),
    "agentflow.cluster.simulation": ("Simulation",),
    "agentflow.core.raft": ("RaftConfig", "RaftStatus"),
    "agentflow.core.scheduling": (
        "Backoff",
        "HealthCheckConfig",
        "MapHandle",
        "PriorityTaskQueue",
        "QueueStats",
        "TaskDependencyGraph",
        "TaskHandle",
        "TaskNode",
        "TaskPriority",
        "TaskState",
        "TriggerRule",
        "WorkerInfo",
        "WorkerRegistry",
        "WorkerResources",
        "WorkerStatus",
        "Workflow",
    ),
    "agentflow.errors": (
        "AgentflowError",
        "Closed",
        "CycleInWorkflow",
        "Disconnected",
        "DuplicateTask",
        "Expired",
        "InvalidConfig",
        "InvalidTransition",
        "InvariantViolated",
        "LockHeld",
        "LockLost",
        "MailboxFull",
        "MissingDependency",
        "MissingExtra",
        "NoQuorum",
        "NoResponders",
        "NoSuchNode",
        "NoSuchTask",
        "NotLeader",
        "ObjectLost",
        "PeerDown",
        "QueueFull",
        "Refused",
        "RemoteError",
        "RequestTimeout",
        "ResultTooLarge",
        "StaleToken",
        "StorageFailed",
        "TaskCancelled",
        "TaskFailed",
        "TimedOut",
        "Unknown",
        "Unpicklable",
        "UpstreamFailed",
    ),
    "agentflow.labs.scenarios": ("scenario",),
    "agentflow.locks": (
        "AutoRenewLock",
        "BlockingLock",
        "DistributedLock",
        "FencedFile",
        "FencedResource",
        "FencedTable",
        "LockInfo",
    ),
    "agentflow.notebook.live.dashboard": ("dashboard",),
    "agentflow.runtime.nemesis": ("Fault", "Nemesis"),
    "agentflow.transport.memory": ("Network",),
}

_module_of = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted(_module_of)]


def __getattr__(name: str) -> Any:
    module = _module_of.get(name)
    if module is None:
        raise AttributeError(f"module 'agentflow' has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """Add `%%workflow` and `%agentflow` to a notebook: `%load_ext agentflow`."""
    importlib.import_module("agentflow.notebook.magics").load(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from agentflow.cluster.agents import AgentCommunication as AgentCommunication
    from agentflow.cluster.agents import AgentMessage as AgentMessage
    from agentflow.cluster.agents import AgentStats as AgentStats
    from agentflow.cluster.agents import DeadLetter as DeadLetter
    from agentflow.cluster.agents import MessageType as MessageType
    from agentflow.cluster.calls import Missing as Missing
    from agentflow.cluster.cluster import Cluster as Cluster
    from agentflow.cluster.cluster import LeftRunning as LeftRunning
    from agentflow.cluster.current import CurrentTask as CurrentTask
    from agentflow.cluster.current import current_task as current_task
    from agentflow.cluster.loops import allow_nested_loops as allow_nested_loops
    from agentflow.cluster.loops import run_sync as run_sync
    from agentflow.cluster.raftnode import Committed as Committed
    from agentflow.cluster.raftnode import RaftNode as RaftNode
    from agentflow.cluster.raftnode import VoteRequest as VoteRequest
    from agentflow.cluster.raftnode import VoteResponse as VoteResponse
    from agentflow.cluster.run import Run as Run
    from agentflow.cluster.settings import EvenMasters as EvenMasters
    from agentflow.cluster.simulating.compare import diff as diff
    from agentflow.cluster.simulating.sweeping import sweep as sweep
    from agentflow.cluster.simulating.workloads import KeyValueLoad as KeyValueLoad
    from agentflow.cluster.simulating.workloads import MembershipLoad as MembershipLoad
    from agentflow.cluster.simulating.workloads import WorkflowLoad as WorkflowLoad
    from agentflow.cluster.simulation import Simulation as Simulation
    from agentflow.core.raft import RaftConfig as RaftConfig
    from agentflow.core.raft import RaftStatus as RaftStatus
    from agentflow.core.scheduling import Backoff as Backoff
    from agentflow.core.scheduling import HealthCheckConfig as HealthCheckConfig
    from agentflow.core.scheduling import MapHandle as MapHandle
    from agentflow.core.scheduling import PriorityTaskQueue as PriorityTaskQueue
    from agentflow.core.scheduling import QueueStats as QueueStats
    from agentflow.core.scheduling import TaskDependencyGraph as TaskDependencyGraph
    from agentflow.core.scheduling import TaskHandle as TaskHandle
    from agentflow.core.scheduling import TaskNode as TaskNode
    from agentflow.core.scheduling import TaskPriority as TaskPriority
    from agentflow.core.scheduling import TaskState as TaskState
    from agentflow.core.scheduling import TriggerRule as TriggerRule
    from agentflow.core.scheduling import WorkerInfo as WorkerInfo
    from agentflow.core.scheduling import WorkerRegistry as WorkerRegistry
    from agentflow.core.scheduling import WorkerResources as WorkerResources
    from agentflow.core.scheduling import WorkerStatus as WorkerStatus
    from agentflow.core.scheduling import Workflow as Workflow
    from agentflow.errors import *  # noqa: F403
    from agentflow.labs.scenarios import scenario as scenario
    from agentflow.locks.autorenew import AutoRenewLock as AutoRenewLock
    from agentflow.locks.blocking import BlockingLock as BlockingLock
    from agentflow.locks.fenced import FencedFile as FencedFile
    from agentflow.locks.fenced import FencedResource as FencedResource
    from agentflow.locks.fenced import FencedTable as FencedTable
    from agentflow.locks.info import LockInfo as LockInfo
    from agentflow.locks.lock import DistributedLock as DistributedLock
    from agentflow.notebook.live.dashboard import dashboard as dashboard
    from agentflow.runtime.nemesis import Fault as Fault
    from agentflow.runtime.nemesis import Nemesis as Nemesis
    from agentflow.transport.memory import Network as Network
