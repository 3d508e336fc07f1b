"""A run as a value: what it was made from, what was done to it, and how far it went.

Law: playing a recipe gives the run again, in any process; of the user's things it holds functions and classes.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from agentflow.cluster.calls import Workbench
from agentflow.cluster.simulating.journal import Act, Journal, replay
from agentflow.cluster.simulating.world import Spec, World
from agentflow.core.control.commands import SubmitRun
from agentflow.ids import RunId
from agentflow.objects.base import ObjectStore
from agentflow.objects.memory import MemoryStore

if TYPE_CHECKING:
    from agentflow.cluster.simulating.past import Past


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to make a run again.

    Parameters
    ----------
    kind : type
        The class of the simulation.
    spec : Spec
        What it was made from.
    acts : tuple of Act
        What was done to it.
    payloads : dict
        What the submitted workflows call.
    step, now : int, float
        How far it went.
    """

    kind: type[Past]
    spec: Spec
    acts: tuple[Act, ...]
    payloads: dict[str, Any]
    step: int
    now: float

    def play(
        self,
        *,
        only_faults: frozenset[int] | None = None,
        acts: tuple[Act, ...] | None = None,
        changed_at: float = math.inf,
        judged: bool = False,
    ) -> Past:
        """Make the run again.

        Parameters
        ----------
        only_faults : frozenset of int, optional
            Of the planned faults, by number, those that are to strike.
        acts : tuple of Act, optional
            What to do in place of what was done.
        changed_at : float
            When the run may begin to differ. What is done from then on is done at its time, and not after
            as many steps as before, which are others.
        judged : bool
            Judge it on the way, and raise where a promise is broken.
        """
        store = MemoryStore()
        for key, table in self.payloads.items():
            store.put(("payload", key), table)
        world = World(self.spec, Journal(), bench=Workbench(store))
        world.only_faults = only_faults
        sim = self.kind._around(world, self.spec.seed)
        sim.judged = judged
        if judged:
            sim._changed_past()
        done = list(self.acts if acts is None else acts)
        if changed_at <= self.now:
            done = [msgspec.structs.replace(act, step=-1) if act.now >= changed_at else act for act in done]
            replay(world, done, time=self.now, step=sys.maxsize)
        else:
            replay(world, done, time=math.inf, step=self.step)
        world.driver.now = self.now
        sim._begin_here(done)
        return sim


def payloads_of(acts: list[Act], objects: ObjectStore) -> dict[str, Any]:
    """Return what the submitted workflows call."""
    found: dict[str, Any] = {}
    for act in acts:
        for arg in act.args:
            if isinstance(arg, SubmitRun) and ("payload", arg.payload) in objects:
                found[arg.payload] = objects.get(("payload", arg.payload))
    return found


def runs_of(acts: list[Act]) -> set[RunId]:
    """Return the runs that somebody follows."""
    return {act.args[1].run for act in acts if act.target == "world" and act.name == "watch"}
