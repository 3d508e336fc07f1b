"""Workers that come when work waits, and go when there is none.

Law: it only ever adds a worker where a task waits that the new one could run, and only ever takes one away
that has been idle for a while, between the two limits it was given.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

from agentflow.core.control.plane import Plane
from agentflow.errors import AgentflowError, InvalidConfig
from agentflow.ids import NodeId

if TYPE_CHECKING:
    from agentflow.cluster.cluster import Cluster

_log = logging.getLogger("agentflow")

LOOK_SECS = 0.1
"""How often it looks."""


class Adaptive:
    """Keeps the number of a group's workers between two limits; made by `cluster.adapt`.

    Parameters
    ----------
    cluster : Cluster
        Whose workers.
    least, most : int
        The limits.
    group : str
        Of which group.
    idle_secs : float
        How long a worker is idle before it goes.
    """

    def __init__(self, cluster: Cluster, least: int, most: int, group: str, idle_secs: float) -> None:
        if not 0 <= least <= most or not most:
            raise InvalidConfig(f"adapt({least}, {most}): write the least and the most workers", field="most")
        if not idle_secs >= 0:
            raise InvalidConfig(f"idle_secs={idle_secs!r} is no time", field="idle_secs")
        self.least, self.most, self.group, self.idle_secs = least, most, group, idle_secs
        self._cluster = cluster
        self._idle_since: dict[NodeId, float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="agentflow-adapt", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        ended = ", stopped" if self._end.is_set() else ""
        return f"<Adaptive {self.group!r}: {self.least} to {self.most} workers{ended}>"

    def stop(self) -> None:
        """Adapt no more; the workers that are there stay."""
        self._end.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _keep(self) -> None:
        while not self._end.wait(LOOK_SECS):
            # A cluster without a leader, or one that is being closed, is looked at again later.
            with contextlib.suppress(AgentflowError):
                self._adapt()

    def _adapt(self) -> None:
        cluster = self._cluster
        mine = [each for each, spec in cluster._deployment.worker_specs.items() if spec.group == self.group]
        waiting, idle = cluster.read(lambda: look(cluster.plane(), self.group, mine))
        if len(mine) < self.least or (waiting and len(mine) < self.most):
            _log.info("%d tasks wait for group %r: one more worker", waiting, self.group)
            cluster.add_worker(self.group)
            return
        now = time.monotonic()
        self._idle_since = {each: self._idle_since.get(each, now) for each in idle}
        if waiting or len(mine) <= self.least:
            return
        for worker, since in self._idle_since.items():
            if now - since >= self.idle_secs:
                cluster.remove_worker(worker, timeout=5.0)
                return


def look(plane: Plane, group: str, workers: list[NodeId]) -> tuple[int, list[NodeId]]:
    """How many tasks wait that a plain worker of the group could run, and which of its workers are idle."""
    waiting = 0
    for entry, _, _ in plane.queue.waiting():
        options = entry.run.option(entry.task)
        waiting += options.group in (None, group) and not (options.resources or options.requires)
    known = [plane.workers[each] for each in workers if each in plane.workers]
    return waiting, [worker.id for worker in known if worker.alive and not worker.running]
