"""Work to put on a simulated cluster: clients of the keys, and workflows.

Law: what is asked, and when, is drawn from the stream the workload is given; so it belongs to the seed.
"""

from __future__ import annotations

import functools
import math
import random
from typing import TYPE_CHECKING, Any, Protocol

from agentflow.cluster.compiling import compile_flow
from agentflow.cluster.facade import CLIENT
from agentflow.core.control.commands import ClientCommand, KeyCas, KeyGet, KeySet
from agentflow.core.raft import ConfigChange, ConfState, Transfer, Transition
from agentflow.core.scheduling import Workflow
from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId

if TYPE_CHECKING:
    from agentflow.cluster.simulating.world import World

__all__ = ["KeyValueLoad", "MembershipLoad", "WorkflowLoad", "Workload"]


FEWEST_VOTERS = 2
"""A `MembershipLoad` leaves so many at least."""


class Workload(Protocol):
    """Something that asks the cluster for things while time passes."""

    def begin(self, world: World, rng: random.Random) -> None:
        """Begin now; `rng` is its own."""
        ...


class KeyValueLoad:
    """Clients that read and write a few keys; what they see is judged for linearizability.

    Parameters
    ----------
    clients : int
        How many, each with one question at a time.
    keys : int
        Over how many keys.
    every : (float, float)
        Bounds of the seconds a client thinks between an answer and its next question.
    mix : (float, float, float)
        Shares of `set`, `get` and `cas`: (1, 0, 0) only proposes, (0, 1, 0) only reads.
    timeout : float
        Seconds after which a client gives up, and does not know.
    until : float
        When they stop asking.

    Examples
    --------
    >>> from agentflow import Simulation
    >>> sim = Simulation(masters=3, seed=7)
    >>> sim.load(KeyValueLoad(clients=2, keys=1))
    >>> sim.run_for(20).check()
    <Verdict ok: simulation>
    """

    def __init__(
        self,
        clients: int = 3,
        keys: int = 3,
        *,
        every: tuple[float, float] = (0.0, 0.3),
        mix: tuple[float, float, float] = (0.4, 0.3, 0.3),
        timeout: float = 2.0,
        until: float = math.inf,
    ) -> None:
        for field, count in (("clients", clients), ("keys", keys)):
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise InvalidConfig(f"{field}={count!r} is no number above 0", field=field)
        if len(mix) != 3 or min(mix) < 0 or not sum(mix) > 0:
            raise InvalidConfig(f"mix={mix!r}: give the shares of set, get and cas", field="mix")
        low, high = every
        if not 0 <= low <= high < math.inf:
            raise InvalidConfig(f"every={every!r}: give two numbers of seconds from 0 up", field="every")
        self.clients, self.keys, self.every, self.mix = clients, keys, tuple(every), tuple(mix)
        self.timeout, self.until = timeout, until
        self.asked = 0

    def begin(self, world: World, rng: random.Random) -> None:
        """Begin now."""
        self._world, self._rng = world, rng
        self._seen: dict[tuple[NodeId, str], Any] = {}
        number = len(world.loads)
        for client in range(self.clients):
            name = f"load-{number}-{client + 1}"
            world.deployment.add_client(name)
            world.driver.after(rng.uniform(*self.every), self._next, name)

    def _next(self, client: NodeId) -> None:
        world, rng = self._world, self._rng
        if world.driver.now >= self.until:
            return
        self.asked += 1
        key = f"k{rng.randrange(self.keys)}"
        function = rng.choices(("set", "get", "cas"), self.mix)[0]
        command: ClientCommand
        if function == "set":
            command = KeySet(key, self.asked)
        elif function == "get":
            command = KeyGet(key)
        else:
            command = KeyCas(key, self._seen.get((client, key)), self.asked)
        told = functools.partial(self._told, client, key, command)
        world.command(client, command, self.timeout, callback=told)

    def _told(self, client: NodeId, key: str, command: ClientCommand, result: Any, final: bool) -> None:
        if isinstance(command, KeyGet):
            if not isinstance(result, BaseException):
                self._seen[client, key] = result
        elif result is None or result is True:
            self._seen[client, key] = command.value  # type: ignore[union-attr]
        self._world.driver.after(self._rng.uniform(*self.every), self._next, client)

    def __repr__(self) -> str:
        return (
            f"af.KeyValueLoad({self.clients}, {self.keys}, every={self.every}, mix={self.mix}, "
            f"timeout={self.timeout}, until={_until(self.until)})"
        )


class WorkflowLoad:
    """Small workflows of random shape, submitted one after another.

    Parameters
    ----------
    every : (float, float)
        Bounds of the seconds between two submissions.
    tasks : (int, int)
        Bounds of how many tasks a workflow has.
    seconds : (float, float)
        Bounds of how long a task takes.
    failing : float
        The share of tasks that raise, whatever their retries.
    until : float
        When no more are submitted.
    """

    def __init__(
        self,
        *,
        every: tuple[float, float] = (0.5, 2.0),
        tasks: tuple[int, int] = (1, 8),
        seconds: tuple[float, float] = (0.01, 0.8),
        failing: float = 0.1,
        until: float = math.inf,
    ) -> None:
        self.every, self.tasks, self.seconds = tuple(every), tuple(tasks), tuple(seconds)
        self.failing, self.until = failing, until
        self.submitted = 0

    def begin(self, world: World, rng: random.Random) -> None:
        """Begin now."""
        self._world, self._rng = world, rng
        self._number = len(world.loads)
        world.driver.after(rng.uniform(*self.every), self._next)

    def _next(self) -> None:
        world, rng = self._world, self._rng
        if world.driver.now >= self.until:
            return
        self.submitted += 1
        key = f"load-{self._number}/{self.submitted}"
        command, table = compile_flow(self._flow(f"flow-{self.submitted}"), key=key, payload=key)
        world.bench.objects.put(("payload", key), table)
        world.command(CLIENT, command, 5.0)
        world.driver.after(rng.uniform(*self.every), self._next)

    def _flow(self, name: str) -> Workflow:
        rng = self._rng
        flow = Workflow(name)
        handles: list[Any] = []
        for task in range(rng.randint(*self.tasks)):
            needs = rng.sample(handles, min(len(handles), rng.randint(0, 2)))
            fails = rng.random() < self.failing
            seconds = round(rng.uniform(*self.seconds), 3)
            retries = rng.randint(0, 2)
            fn = fail if fails else add_up
            handles.append(flow.add(fn, task, *needs, id=f"t{task}", duration=seconds, retries=retries))
        return flow

    def __repr__(self) -> str:
        return (
            f"af.WorkflowLoad(every={self.every}, tasks={self.tasks}, seconds={self.seconds}, "
            f"failing={self.failing}, until={_until(self.until)})"
        )


class MembershipLoad:
    """Changes of who the masters are, and of who leads them.

    Masters are taken out of the configuration and back into it, made learners and voters, one at a time
    and several at once through a joint configuration. None of them is stopped for it. In the end all vote.

    Two voters stay at least. From two to one there is a dead end: a leader that has committed its own
    removal, and told nobody, may hold entries that the other lacks, and then refuses it its vote. And give
    the masters `check_quorum`, without which one that was removed can depose leaders (thesis 4.2.3).

    Parameters
    ----------
    every : (float, float)
        Bounds of the seconds between two attempts.
    transfers : float
        The share of attempts that hand leadership over instead.
    until : float
        From when on the configuration in which all vote is restored.

    Examples
    --------
    >>> from agentflow import Simulation
    >>> sim = Simulation(masters=5, seed=7)
    >>> sim.load(MembershipLoad(until=40))
    >>> len({record.payload.conf for record in sim.run_for(60).trace if record.kind == "config"}) > 5
    True
    >>> sim.check()
    <Verdict ok: simulation>
    """

    def __init__(
        self, *, every: tuple[float, float] = (0.3, 2.0), transfers: float = 0.2, until: float = math.inf
    ) -> None:
        self.every, self.transfers, self.until = tuple(every), transfers, until

    def begin(self, world: World, rng: random.Random) -> None:
        """Begin now."""
        self._world, self._rng = world, rng
        world.driver.after(rng.uniform(*self.every), self._next)

    def _next(self) -> None:
        world, rng = self._world, self._rng
        leader = world.deployment.leader()
        ending = world.driver.now >= self.until
        machine = world.deployment.master(leader) if leader is not None else None
        if machine is not None:
            conf = machine.raft.status().conf
            if ending and set(conf.voters) == set(world.deployment.master_ids) and not conf.voters_outgoing:
                return
            request = self._restored(conf) if ending else self._drawn(conf)
            world.host.ask(machine.id, request, _nobody)
        world.driver.after(0.1 if ending else rng.uniform(*self.every), self._next)

    def _drawn(self, conf: ConfState) -> ConfigChange | Transfer:
        rng, masters = self._rng, self._world.deployment.master_ids
        if rng.random() < self.transfers:
            return Transfer(rng.choice(masters))
        if conf.voters_outgoing:
            return ConfigChange()
        lists: dict[str, list[NodeId]] = {"add": [], "learn": [], "remove": []}
        voters = set(conf.voters)
        for master in rng.sample(masters, rng.choice((1, 1, 1, 2, 3))):
            what = rng.choice(("add", "add", "learn", "remove"))
            if what == "add" or len(voters - {master}) < FEWEST_VOTERS:
                what, voters = "add", voters | {master}
            else:
                voters = voters - {master}
            lists[what].append(master)
        return ConfigChange.of(transition=rng.choice(tuple(Transition)), **lists)

    def _restored(self, conf: ConfState) -> ConfigChange:
        if conf.voters_outgoing:
            return ConfigChange()
        return ConfigChange.of(
            add=[each for each in self._world.deployment.master_ids if each not in conf.voters]
        )

    def __repr__(self) -> str:
        return (
            f"af.MembershipLoad(every={self.every}, transfers={self.transfers}, until={_until(self.until)})"
        )


def _nobody(answer: Any, final: bool) -> None:
    """Nobody waits for the answer: what came of it is in the trace."""


def add_up(*numbers: int) -> int:
    """What the tasks of a `WorkflowLoad` do."""
    return sum(numbers)


def fail(*numbers: int) -> int:
    """What those do that fail."""
    raise ValueError(f"task {numbers[0]} was made to fail")


def _until(until: float) -> str:
    return "float('inf')" if until == math.inf else repr(until)
