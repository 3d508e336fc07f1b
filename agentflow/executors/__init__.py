"""How workers get work done: threads of ours, processes, or any `concurrent.futures.Executor`."""

from agentflow.executors.base import Outcome, Runner, perform
from agentflow.executors.choose import ExecutorSpec, runner_for
from agentflow.executors.engines import RayExecutor
from agentflow.executors.futures import ExecutorRunner
from agentflow.executors.inline import InlineRunner
from agentflow.executors.processes import ProcessRunner
from agentflow.executors.threads import ThreadRunner

__all__ = [
    "ExecutorRunner",
    "ExecutorSpec",
    "InlineRunner",
    "Outcome",
    "ProcessRunner",
    "RayExecutor",
    "Runner",
    "ThreadRunner",
    "perform",
    "runner_for",
]
