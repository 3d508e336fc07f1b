"""Going back: `rewind`, `branch`, `state_at`, and the proof that there is one way only.

Law: the past is made again, not remembered. A world is brought to an instant by its seed and the acts done to
it until then; copies of worlds taken on the way only shorten it. What is made again is compared with what the
trace says, so a past that differs is an error and never a surprise.
"""

from __future__ import annotations

import math
from typing import Self

from agentflow.check.verdict import Verdict
from agentflow.cluster.calls import Workbench
from agentflow.cluster.run import Run
from agentflow.cluster.simulating.base import alone, by_hand
from agentflow.cluster.simulating.compare import compare, prove
from agentflow.cluster.simulating.copies import LEAST_STEPS, MOST_COPIES, Mark
from agentflow.cluster.simulating.journal import Act, Journal, advance, again, replay
from agentflow.cluster.simulating.judging import Judged
from agentflow.cluster.simulating.moment import Moment, look
from agentflow.cluster.simulating.recipe import runs_of
from agentflow.cluster.simulating.store import Overlay
from agentflow.cluster.simulating.world import World
from agentflow.core.nodes.messages import Progress
from agentflow.core.record import Record
from agentflow.errors import InvalidConfig, InvariantViolated, NoSuchTask


class Past(Judged):
    """A simulation that can go back."""

    def mark(self) -> Mark:
        """Remember this very place in the run, for `rewind`: between two events of one instant, too."""
        self._journal.look()
        driver = self._world.driver
        return Mark(driver.now, driver.steps, len(self._journal.acts))

    @alone
    def rewind(self, to: float | Record | Mark) -> Self:
        """Go back to an instant: the state there, faults included. What came later is forgotten.

        Runs and handles stay what they are; a run that was not submitted yet is lost. Tasks' functions are
        not called again for what had happened by then.

        Parameters
        ----------
        to : float, Record or Mark
            The instant, in virtual seconds: everything that fell on it has happened, and what was done by
            hand at it is undone, so that it can be done otherwise (but for what was set up before time
            moved at all). Or a record of the trace (`verdict.first_bad`, say): the state just before it.
            Or what `mark()` gave.

        Raises
        ------
        InvalidConfig
            If that is not in the past.
        InvariantViolated
            If the run cannot be made again: something in it draws chance or time from outside.

        Examples
        --------
        >>> from agentflow import Simulation
        >>> sim = Simulation(masters=3, seed=7).run_for(10)
        >>> before = sim.trace.digest()
        >>> sim.rewind(to=4).run_for(6).trace.digest() == before
        True
        """
        self._take_over(self._shell(self._point(to)))
        return self

    @alone
    def branch(self, seed: int | None = None) -> Self:
        """Return another simulation that is now where this one is, and goes its own way.

        Parameters
        ----------
        seed : int, optional
            Other luck for wires and disks from here on; by default the same.

        Examples
        --------
        >>> from agentflow import Simulation, diff
        >>> sim = Simulation(masters=3, seed=7).run_for(5)
        >>> other = sim.branch()
        >>> other.kill(other.leader)
        >>> diff(sim.run_for(1), other.run_for(1)).seq == len(sim.rewind(to=5).trace)
        True
        """
        twin = self._shell(self.mark())
        # From here on each has values of its own.
        past = self._bench.objects
        self._bench.objects = Overlay(past)
        twin._world.work_at(Workbench(Overlay(past)))
        twin._bench = twin._world.bench
        if seed is not None:
            twin.reseed(seed)
        return twin

    def reseed(self, seed: int) -> None:
        """Give wires and disks other luck from now on."""
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise InvalidConfig(f"seed={seed!r}: a seed is a whole number", field="seed")
        self._world.reseed(seed)

    reseed = by_hand(reseed)  # type: ignore[assignment]

    @alone
    def as_of(self, time: float | Record | Mark) -> Self:
        """Return a simulation of its own that is as this one was at an instant; see `rewind` for how to name it."""
        return self._shell(self._point(time))

    @alone
    def state_at(self, time: float | Record | Mark) -> Moment:
        """Look at an earlier instant without going back to it; see `rewind` for how to name it."""
        if time == self.now:
            return look(self)
        return look(self._shell(self._point(time)))

    def prove_deterministic(self, *, process: bool = True) -> Verdict:
        """Do the whole run again and compare it, event for event.

        Once here, and once in another process under another hash seed, where the order of sets and the
        addresses of objects differ. Functions of tasks are called again.

        Parameters
        ----------
        process : bool
            Whether to do the second. What cannot be sent to another process (a lock, an open file) makes
            the verdict unknown.

        Returns
        -------
        Verdict
            `facts["digest"]` is the hash of the trace; if violated, `first_bad` is the first event that
            differs, and the explanation says how.

        Examples
        --------
        >>> from agentflow import Simulation
        >>> Simulation(masters=3, seed=7).run_for(10).prove_deterministic(process=False)
        <Verdict ok: deterministic>
        """
        self._journal.look()
        return prove(self, process=process)

    # --- making the past again ----------------------------------------------------------------------------

    @classmethod
    def _around(cls, world: World, seed: int) -> Self:
        """Return a simulation around a world that is still being brought to an instant."""
        sim = object.__new__(cls)
        sim._setup()
        sim._open(seed)
        world.sim = sim
        sim._world = world
        sim._deployment, sim._bench = world.deployment, world.bench
        return sim

    def _begin_here(self, acts: list[Act]) -> None:
        """Begin to live where the world has been brought to."""
        self._journal.acts = acts
        self._move_in(self._world)

    def _point(self, to: float | Record | Mark) -> Mark:
        """Find the place that the user names."""
        here = self.mark()
        if isinstance(to, Mark):
            if to.time > here.time or to.step > here.step or to.acts > here.acts:
                raise InvalidConfig(f"{to} is not in the past of this run", field="to")
            return to
        if isinstance(to, Record):
            records = self.trace.since(to.seq)
            if not records or records[0] != to:
                raise InvalidConfig(f"record {to.seq} is not of this run", field="to")
            return self._before(to)
        if not isinstance(to, int | float) or isinstance(to, bool) or not 0 <= to <= self.now:
            raise InvalidConfig(f"it is {self.now:g} s; there is no going back to {to!r}", field="to")
        if to == here.time:
            return here
        undone = [number for number, act in enumerate(self._journal.acts) if act.now >= to and act.step]
        return Mark(float(to), here.step, undone[0] if undone else here.acts)

    def _before(self, record: Record) -> Mark:
        """Find the last place at which a record was not yet written."""
        start = [each for each in self._copies.worlds if each.trace.next <= record.seq]
        world = start[-1].copy() if start else self._fresh()
        self._remember(world)
        driver, acts = world.driver, self._journal.acts
        mark = Mark(0.0, 0, 0)
        while world.trace.next <= record.seq:
            mark = Mark(driver.now, driver.steps, world.acted)
            if world.acted < len(acts) and acts[world.acted].step <= driver.steps:
                again(world, acts[world.acted])
            elif driver.steps < self._world.driver.steps:
                advance(world, math.inf, driver.steps + 1)
            else:
                break
        return mark

    def _remember(self, world: World) -> Self:
        """Put a world into a simulation of its own that knows how this one's tasks went."""
        twin = self._around(world, self.seed)
        world.join(twin._journal)
        world.remembers, world.outcomes = True, self._world.outcomes
        return twin

    def _fresh(self) -> World:
        return World(self._world.spec, Journal(), bench=self._world.bench)

    def _shell(self, mark: Mark) -> Self:
        """Return a simulation of its own that is at an instant of this one's past."""
        copies, steps = self._copies, self._world.driver.steps
        acts = self._journal.acts[: mark.acts]
        start = copies.before(mark)
        world = self._fresh() if start is None else start.copy()
        twin = self._remember(world)
        first, every = world.trace.next, max(LEAST_STEPS, steps // MOST_COPIES)
        while (stop := (world.driver.steps // every + 1) * every) < mark.step:
            replay(world, acts, time=mark.time, step=stop)
            if world.driver.steps < stop:
                break
            copies.keep(world)
        replay(world, acts, time=mark.time, step=mark.step)
        world.driver.now = mark.time
        self._compare(world, first)
        twin._inherit(self, mark)
        return twin

    def _inherit(self, origin: Past, mark: Mark) -> None:
        """Take over what was known at the instant to which the world was brought."""
        world = self._world
        steps = world.driver.steps
        world.remembers = False
        world.outcomes = {key: value for key, value in origin._world.outcomes.items() if key[2] <= steps}
        if mark.step == origin._world.driver.steps and mark.time < origin.now:
            self._whole = (steps, mark.time)
        elif mark == origin.mark():
            self._whole = origin._whole
        self.judged = origin.judged
        self._script = origin._script.until(world.acted, steps)
        self._copies = origin._copies.until(mark)
        self._submissions, self._given = origin._submissions, dict(origin._given)
        acts = origin._journal.acts[: world.acted]
        followed = runs_of(acts)
        for run in origin._runs.values():
            if run.id in followed:
                self._runs[run.id] = Run(run.id, run.flow, self._given[run.id], run.key, self)
        self._begin_here(acts)
        self._retell()

    def _retell(self) -> None:
        """Tell the runs again what they had heard by now."""
        if self._runs:
            for record in self.trace:
                if record.kind == "answer" and isinstance(record.payload, Progress):
                    self.hear(record.payload.run, record.payload, record.payload.done)

    def _take_over(self, other: Self) -> None:
        """Become what another simulation is, under the handles that people hold."""
        world, network, runs = other._world, self._world.network, self._runs
        if self._world.bus is not None:
            self._world.bus.hand_over(world.bus)
        self._script, self._journal, self._copies = other._script, other._journal, other._copies
        self._whole, self._submissions, self._given = other._whole, other._submissions, other._given
        network.__dict__ = world.network.__dict__
        world.host.network = network
        self._runs = {}
        for run in runs.values():
            Run.__init__(run, run.id, run.flow, self._given[run.id], run.key, self)
            if run.id in other._runs:
                self._runs[run.id] = run
            else:
                gone = NoSuchTask(f"the simulation went back to before {run.id} was submitted", task=run.id)
                run._hear(gone, True)
        self._move_in(world)
        self._retell()

    def _compare(self, world: World, first: int) -> None:
        """Raise if what was made again is not what had happened."""
        found = compare(self.trace.since(first), world.trace.since(first), prefix=True)
        if found is not None:
            raise InvariantViolated(
                f"the run could not be made again: {found.explanation}. Something in it draws chance or "
                "time from outside the seed; prove_deterministic() says where it first shows",
                seed=self.seed,
                trace=[each for each in (found.left, found.right) if each is not None],
            )
