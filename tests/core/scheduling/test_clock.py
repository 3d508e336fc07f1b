"""Who lends the core its clock."""

import subprocess
import sys

from agentflow.core.scheduling import (
    HealthCheckConfig,
    PriorityTaskQueue,
    TaskDependencyGraph,
    WorkerInfo,
    WorkerRegistry,
)
from agentflow.core.scheduling.clock import default, install


def test_classes_without_a_clock_read_the_one_that_was_lent(monkeypatch):
    monkeypatch.setattr("agentflow.core.scheduling.clock._lent", [])
    queue, registry = PriorityTaskQueue(), WorkerRegistry(HealthCheckConfig(1, 2, 3))
    graph = TaskDependencyGraph(["a"])
    now = 100.0
    install(lambda: now, lambda secs: None)
    assert registry.register(WorkerInfo("w")).registered_at == 100.0
    graph.update_task_state("a", "running")
    now = 104.0
    assert registry.get_worker("w").status.name == "OFFLINE"
    graph.update_task_state("a", "completed")
    assert graph.duration("a") == 4.0
    assert queue.stats().oldest_s == 0.0
    assert default() == 104.0


def test_a_clock_of_one_s_own_touches_no_other():
    program = (
        "import sys\n"
        "from agentflow.core.scheduling import PriorityTaskQueue, TaskNode, WorkerRegistry, WorkerInfo\n"
        "queue = PriorityTaskQueue(clock=lambda: 0.0)\n"
        "queue.enqueue(TaskNode('a')); queue.dequeue()\n"
        "WorkerRegistry(clock=lambda: 0.0).register(WorkerInfo('w'))\n"
        "assert 'agentflow.cluster.queue' not in sys.modules\n"
        "assert 'numpy' not in sys.modules and 'networkx' not in sys.modules\n"
        "PriorityTaskQueue().enqueue(TaskNode('a'))\n"
        "assert 'agentflow.cluster.queue' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
