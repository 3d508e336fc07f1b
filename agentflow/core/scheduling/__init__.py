"""Scheduling, usable alone: workflows, their graph, a priority queue, and a registry of workers.

Law: nothing here reads a clock, draws a random number or opens anything; the time is an argument, or comes
from the `clock` a class was given.
"""

from agentflow.core.scheduling.analysis import CriticalPath
from agentflow.core.scheduling.graph import TaskDependencyGraph
from agentflow.core.scheduling.handles import Call, MapHandle, TaskHandle, substitute
from agentflow.core.scheduling.lanes import priority_score
from agentflow.core.scheduling.queue import PriorityTaskQueue
from agentflow.core.scheduling.queue_stats import DeadLetter, Failure, QueueStats
from agentflow.core.scheduling.registry import WorkerRegistry
from agentflow.core.scheduling.states import Progress
from agentflow.core.scheduling.tasks import (
    Backoff,
    TaskNode,
    TaskPriority,
    TaskState,
    TriggerRule,
)
from agentflow.core.scheduling.workers import (
    HealthCheckConfig,
    WorkerHealth,
    WorkerInfo,
    WorkerResources,
    WorkerStatus,
)
from agentflow.core.scheduling.workflow import Workflow

__all__ = [
    "Backoff",
    "Call",
    "CriticalPath",
    "DeadLetter",
    "Failure",
    "HealthCheckConfig",
    "MapHandle",
    "PriorityTaskQueue",
    "Progress",
    "QueueStats",
    "TaskDependencyGraph",
    "TaskHandle",
    "TaskNode",
    "TaskPriority",
    "TaskState",
    "TriggerRule",
    "WorkerHealth",
    "WorkerInfo",
    "WorkerRegistry",
    "WorkerResources",
    "WorkerStatus",
    "Workflow",
    "priority_score",
    "substitute",
]
