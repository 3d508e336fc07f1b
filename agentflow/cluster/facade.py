"""What a person can do with a cluster, whichever clock moves it.

`Cluster` and `Simulation` differ in three things only: how a function gets onto the loop, how one waits,
and what a second is.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from agentflow.cluster.calls import Workbench, compile_flow
from agentflow.cluster.deployment import Deployment, WorkerSpec
from agentflow.cluster.explain import diagnose, explain_task, masters_trouble
from agentflow.cluster.frames import ClusterFrames, RunFrames
from agentflow.cluster.nodes import MasterHandle, Nodes, WorkerHandle
from agentflow.cluster.run import Run, drawn
from agentflow.cluster.settings import check_readable, checked_spec, checked_timeout
from agentflow.core.control.commands import (
    CancelRun,
    ClientCommand,
    DrainWorker,
    ForgetRun,
    KeyCas,
    KeyGet,
    KeySet,
    RemoveWorker,
)
from agentflow.core.control.plane import Plane
from agentflow.core.nodes.client import Command, Watch
from agentflow.core.nodes.master import Master
from agentflow.core.record import Record
from agentflow.core.scheduling import Workflow
from agentflow.errors import AgentflowError, Closed, InvalidConfig, NoSuchNode, NoSuchTask, Refused, Unknown
from agentflow.ids import AttemptId, NodeId, RunId, TaskId
from agentflow.transport.memory import Network
from agentflow.views import Viewable

if TYPE_CHECKING:
    from agentflow.cluster.agents.agent import AgentCommunication
    from agentflow.cluster.agents.bus import Bus

_T = TypeVar("_T")

CLIENT: NodeId = "notebook"
"""The client through which a person's own requests go."""


class Facade(Viewable):
    """The common part of `Cluster` and `Simulation`."""

    began: float
    _deployment: Deployment
    _bench: Workbench

    # --- what the two differ in ---------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the cluster began."""
        raise NotImplementedError

    def read(self, fn: Callable[[], _T]) -> _T:
        """Call `fn` where nothing changes meanwhile, and give what it returns."""
        raise NotImplementedError

    def _ask(self, node_id: NodeId, request: Any, callback: Callable[[Any, bool], None]) -> None:
        raise NotImplementedError

    def wait(self, condition: threading.Condition, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `done()`; give whether it came true in time."""
        raise NotImplementedError

    def clock(self) -> float:
        """Seconds on the clock that `wait` goes by: the cluster's own, where waiting moves it."""
        return self.now

    @property
    def moves_time(self) -> bool:
        """Whether nothing happens unless somebody waits, as in virtual time."""
        return True

    def _setup(self) -> None:
        self._runs: dict[RunId, Run] = {}
        self._submissions = 0
        self._closed = False

    # --- nodes --------------------------------------------------------------------------------------------

    @property
    def leader(self) -> NodeId | None:
        """The master that leads, or None while there is none."""
        return self.read(self._deployment.leader)

    @property
    def masters(self) -> Mapping[NodeId, MasterHandle]:
        """The masters, by id."""
        return Nodes(self._deployment.master_ids, lambda node: MasterHandle(self, node))

    @property
    def workers(self) -> Mapping[NodeId, WorkerHandle]:
        """The workers on this host, by id."""
        return Nodes(tuple(self._deployment.worker_specs), lambda node: WorkerHandle(self, node))

    @property
    def network(self) -> Network:
        """The wires between the nodes; `loss`, `latency_ms` and the rest may be set while it runs."""
        network = self._deployment.host.network
        assert isinstance(network, Network)
        return network

    @property
    def frames(self) -> ClusterFrames:
        """The cluster's tables as DataFrames."""
        return ClusterFrames(self)

    @property
    def plot(self) -> Any:
        """Pictures with `.save()`: `panel()`, `elections(ax=)`, `queue(ax=)`, `workers()`, `node(id)`."""
        return drawn("plot", self)

    def report(self, path: str) -> Any:
        """Write one self-contained HTML file about the cluster and its runs; give its path."""
        return drawn("report", self)(path)

    # --- work ---------------------------------------------------------------------------------------------

    def submit(
        self,
        work: Workflow | Callable[..., Any],
        *args: Any,
        idempotency_key: str | None = None,
        commit_timeout: float | None = None,
        **kwargs: Any,
    ) -> Run:
        """Hand work to the masters; return when a majority of them has it, not when it is done.

        Parameters
        ----------
        work : Workflow or callable
            A workflow, or a function to call once with the arguments that follow. Keywords that `Workflow.add`
            defines (`retries`, `group`, ...) are settings of that one task.
        idempotency_key : str, optional
            A second submission with the same key is the first one again: use it to ask again after `Unknown`.
        commit_timeout : float, optional
            Seconds to wait for the majority; by default the masters' `replication_timeout_ms`.

        Returns
        -------
        Run
            What to wait for and to read results from.

        Raises
        ------
        Refused
            Nothing was started: the workflow is wrong, or no majority of masters can be reached (`NoQuorum`).
        Unknown
            It may have been started; submit again with the same key to find out: the error has it as `key`.
        """
        self._check_open()
        if isinstance(work, Workflow):
            if args or kwargs:
                raise InvalidConfig(
                    f"submit({work!r}, ...) takes no further arguments; give them to the workflow's tasks",
                    field="args",
                )
            flow = work
        else:
            flow = Workflow(getattr(work, "__name__", None) or type(work).__name__)
            flow.add(work, *args, **kwargs)
            mine = {"idempotency_key": idempotency_key, "commit_timeout": commit_timeout}
            for option in [name for name, value in mine.items() if value is not None]:
                if option in keywords_of(work):
                    raise InvalidConfig(
                        f"{flow.name} has a parameter {option!r}, and {option}= is an option of submit too; "
                        f"give the function's as kwargs={{{option!r}: {mine[option]!r}}}",
                        field=option,
                    )
        return self._submit(flow, idempotency_key, commit_timeout)

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **options: Any) -> Run:
        """Run a function on each item, as one task each; `run.result()` gives the list.

        Parameters
        ----------
        fn : callable
            What to call.
        *iterables : iterable
            One or more; of several, the function gets an item of each, as with the built-in `map`.
        **options
            Settings of the tasks, as for `Workflow.map`.
        """
        self._check_open()
        if not iterables:
            raise InvalidConfig("map needs something to go through: map(fn, items)", field="iterables")
        flow = Workflow(f"map {getattr(fn, '__name__', type(fn).__name__)}")
        if len(iterables) == 1:
            flow.map(fn, iterables[0], **options)
        else:
            for each in iterables:
                if isinstance(each, str | bytes) or not isinstance(each, Iterable):
                    raise InvalidConfig(
                        f"a map goes over a list, a range, ..., not {each!r}", field="iterables"
                    )
            flow.map(Spread(fn), zip(*iterables, strict=False), **options)
        return self._submit(flow, None, None)

    def _submit(self, flow: Workflow, key: str | None, timeout: float | None) -> Run:
        if key is not None and (not isinstance(key, str) or not key):
            raise InvalidConfig(
                f"an idempotency key is a string with something in it, not {key!r}", field="idempotency_key"
            )
        self._submissions += 1
        key = key or f"{CLIENT}/{self._submissions}"
        command, table = compile_flow(flow, key=key, payload=key)
        check_readable(command)
        payload = ("payload", key)
        mine = payload not in self._bench.objects
        if mine:
            self._bench.objects.put(payload, table)
        try:
            run_id = self._command(CLIENT, command, timeout)
        except Unknown as error:
            error.key = key  # type: ignore[attr-defined]
            raise
        except Refused:
            if mine:
                self._bench.objects.delete(payload)
            raise
        known = self._runs.get(run_id)
        if known is not None:
            return known
        return self._adopt(Run(run_id, flow, command.ids, key, self))

    def _adopt(self, run: Run) -> Run:
        self._runs[run.id] = run
        if not run.done:
            self._ask(CLIENT, Watch(run.id, len(run)), run._hear)
        return run

    def attach(self, run_id: RunId) -> Run:
        """Give a run that was submitted before.

        Raises
        ------
        NoSuchTask
            If there is no run of that id.
        """
        run = self._runs.get(run_id)
        if run is None:
            known = ", ".join(self._runs) or "none"
            raise NoSuchTask(f"there is no run {run_id!r}; this cluster has {known}", task=run_id)
        return run

    @property
    def runs(self) -> dict[RunId, Run]:
        """Every run submitted here, by id."""
        return dict(self._runs)

    # --- commands -----------------------------------------------------------------------------------------

    def client(self, name: str) -> KeyValueClient:
        """Give a client of the replicated key-value store, with a session of its own."""
        self._check_open()
        if not isinstance(name, str) or not name:
            raise InvalidConfig(
                f"a client's name is a string with something in it, not {name!r}", field="name"
            )
        check_readable(KeyGet(name))
        self.read(lambda: self._deployment.add_client(name))
        return KeyValueClient(self, name)

    def agent(self, name: str, **settings: int) -> AgentCommunication:
        """Give the agent of that name, started if there is none.

        It is a node like any other, so faults are made with it too. `settings` are the `capacity` of its
        mailbox and the length of its `history`.
        """
        from agentflow.cluster.agents.agent import agent_of

        self._check_open()
        return agent_of(self._lay_bus(), name, **settings)

    def _lay_bus(self) -> Bus:
        raise NotImplementedError

    def _command(self, client: NodeId, command: ClientCommand, timeout: float | None = None) -> Any:
        """Have a command take effect, through whoever leads."""
        self._check_open()
        limit = self._deployment.raft.replication_timeout_ms / 1000 if timeout is None else timeout
        if not checked_timeout(limit):
            raise InvalidConfig(f"timeout={timeout!r} is not a positive number of seconds", field="timeout")
        answers: list[Any] = []
        changed = threading.Condition()

        def take(answer: Any, final: bool) -> None:
            with changed:
                answers.append(answer)
                changed.notify_all()

        self._ask(client, Command(command, limit), take)
        # The client itself answers at the limit; only a cluster that was closed meanwhile never does.
        self.wait(changed, lambda: bool(answers), None)
        if isinstance(answers[0], BaseException):
            raise answers[0]
        return answers[0]

    def cancel(self, run: RunId) -> int:
        """Cancel what has not settled of a run; give how many tasks that were."""
        return int(self._command(CLIENT, CancelRun(run)))

    def forget(self, run: RunId) -> None:
        """Drop a finished run's values and tables."""
        attempts = self.read(lambda: self._attempts_of(run))
        self._command(CLIENT, ForgetRun(run))
        for attempt in attempts:
            self._bench.objects.delete(("value", attempt))
            self._bench.objects.delete(("error", attempt))
        gone = self._runs.pop(run, None)
        if gone is not None:
            self._bench.objects.delete(("payload", gone.key))

    def _attempts_of(self, run: RunId) -> list[AttemptId]:
        tables = self.plane().runs.get(run)
        return [] if tables is None else [row.attempt for row in tables.history]

    # --- what a run asks ----------------------------------------------------------------------------------

    def value_of(self, attempt: AttemptId) -> Any:
        """Give the value that an attempt returned."""
        return self._bench.objects.get(("value", attempt))

    def error_of(self, attempt: AttemptId) -> BaseException | None:
        """Give the exception that an attempt raised, if it is still kept."""
        key = ("error", attempt)
        return self._bench.objects.get(key) if key in self._bench.objects else None

    def run_frames(self, run: Run) -> RunFrames:
        """Give a run's tables."""
        return RunFrames(self, run)

    def explain(self, run: Run, task: TaskId) -> str:
        """Say why a task is where it is."""
        return self.read(lambda: explain_task(self.plane(), self.now, run.id, task, self._trouble()))

    def _trouble(self) -> str:
        """Why nothing is decided at the moment, if nothing is."""
        return f"{self!r} is closed." if self._closed else masters_trouble(self._deployment)

    def diagnose(self) -> str:
        """Say in words what is wrong with the cluster, or that nothing is."""
        if self._closed:
            return self._trouble()
        return self.read(lambda: diagnose(self._deployment, self.now))

    # --- what the tables read -----------------------------------------------------------------------------

    def plane(self) -> Plane:
        """The control plane to read from."""
        return self._deployment.plane()

    def records(self) -> Iterator[Record]:
        """The trace, oldest first."""
        return iter(self._deployment.host.trace)

    def masters_up(self) -> dict[NodeId, Master | None]:
        """Every master's machine, None where it is down."""
        return {node_id: self._deployment.master(node_id) for node_id in self._deployment.master_ids}

    def heartbeat_ages(self) -> dict[NodeId, float]:
        """Seconds since the leader last heard each worker."""
        leader = self._deployment.leader()
        machine = None if leader is None else self._deployment.master(leader)
        if machine is None or machine.lead is None:
            return {}
        return {worker: max(0.0, self.now - at) for worker, at in machine.lead.heard.items()}

    def names_of(self, run: RunId) -> Mapping[TaskId, str]:
        """The names of a run's tasks, where these are not their ids."""
        known = self._runs.get(run)
        nodes = () if known is None else (node for _, node in known.flow.parts()[2])
        return {node.id: node.name for node in nodes if node.name != node.id}

    # --- breaking things ----------------------------------------------------------------------------------

    def _node(self, node: Any) -> NodeId:
        self._check_open()
        node_id = getattr(node, "id", node)
        if not isinstance(node_id, str):
            raise NoSuchNode(f"a node is named by its id or its handle, not by {node!r}", node=node)
        return self._deployment.check_node(node_id)

    def kill(self, node: Any) -> None:
        """Take a node down at once; only what its disk holds survives."""
        node_id = self._node(node)

        def crash() -> None:
            self._retire(node_id)
            self._deployment.host.crash(node_id, "kill")

        self.read(crash)

    def _retire(self, node_id: NodeId) -> None:
        """Want no more of what runs the tasks of a worker that is gone."""

    def restart(self, node: Any) -> None:
        """Start a node again from what its disk holds."""
        node_id = self._node(node)
        self.read(lambda: self._deployment.host.restart(node_id))

    def pause(self, node: Any) -> None:
        """Let a node stand still, as a stopped process does; what reaches it waits."""
        node_id = self._node(node)
        self.read(lambda: self._deployment.host.pause(node_id))

    def resume(self, node: Any) -> None:
        """Let a paused node go on."""
        node_id = self._node(node)
        self.read(lambda: self._deployment.host.resume(node_id))

    def slow(self, node: Any, ms: float) -> None:
        """Let every message from or to a node take `ms` milliseconds longer; 0 ends it."""
        node_id = self._node(node)
        self.read(lambda: self.network.slow(node_id, ms))

    def partition(self, *groups: Collection[Any]) -> None:
        """Cut the network between groups of nodes; a node in no group keeps all its links.

        Examples
        --------
        `cluster.partition({"master-1"}, {"master-2", "master-3"})`
        """
        named = [{self._node(node) for node in _as_group(group)} for group in groups]
        self.read(lambda: self.network.partition(*named))

    def heal(self) -> None:
        """Mend every cut in the network."""
        self._check_open()
        self.read(self.network.heal)

    # --- elasticity ---------------------------------------------------------------------------------------

    def add_worker(
        self,
        group: str = "default",
        *,
        max_tasks: int = 4,
        cpu_cores: float = 4.0,
        gpu_count: int = 0,
        resources: Mapping[str, float] | None = None,
        attributes: Mapping[str, str | float | bool] | None = None,
    ) -> WorkerHandle:
        """Start one more worker.

        Parameters
        ----------
        group : str
            Its group: tasks of a group run only there.
        max_tasks : int
            Attempts it runs at once.
        cpu_cores : float
            Cores that its load is counted against.
        gpu_count : int
            GPUs it offers, as the resource `gpu`.
        resources, attributes : mapping, optional
            What `resources=` and `requires=` of tasks may ask for.
        """
        self._check_open()
        spec = WorkerSpec(
            group, max_tasks, cpu_cores, gpu_count, dict(resources or {}), dict(attributes or {})
        )
        checked_spec(spec)
        return WorkerHandle(self, self.read(lambda: self._deployment.add_worker(spec)))

    def remove_worker(self, worker: Any, *, drain: bool = True, timeout: float | None = None) -> None:
        """Take a worker away.

        Parameters
        ----------
        worker : str or handle
            Which one.
        drain : bool
            Let it finish what it runs; otherwise that starts elsewhere.
        timeout : float, optional
            Seconds to let it finish; what is left then starts elsewhere.
        """
        worker_id = self._node(worker)
        if worker_id not in self._deployment.worker_specs:
            raise NoSuchNode(
                f"{worker_id!r} is no worker; workers are {', '.join(self.workers)}", node=worker_id
            )
        registered = self.read(lambda: worker_id in self._deployment.plane().workers)
        if registered and drain:
            self._command(CLIENT, DrainWorker(worker_id))
            self.wait(threading.Condition(), lambda: self.read(lambda: self._is_idle(worker_id)), timeout)
        if registered:
            self._strike_off(worker_id)

        def remove() -> None:
            self._retire(worker_id)
            self._deployment.remove_worker(worker_id)

        self.read(remove)

    def _strike_off(self, worker_id: NodeId) -> None:
        """Have the masters forget a worker, which must not hear of it: it would register again."""
        host = self._deployment.host
        was_up = self.read(lambda: host.state(worker_id)) == "up"
        self.read(lambda: host.pause(worker_id))
        try:
            self._command(CLIENT, RemoveWorker(worker_id))
        except AgentflowError:
            if was_up:
                self.read(lambda: host.resume(worker_id))
            raise

    def _is_idle(self, worker_id: NodeId) -> bool:
        worker = self._deployment.plane().workers.get(worker_id)
        return worker is None or not worker.alive or not worker.running

    # --- helpers ------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self!r} is closed; make a new one")


class KeyValueClient:
    """A client of the replicated key-value store; made by `cluster.client(name)`.

    Every command goes through the log and takes effect once, however often it had to be sent.
    """

    def __init__(self, home: Facade, name: str) -> None:
        self._home = home
        self.id = name

    def __repr__(self) -> str:
        return f"<client {self.id!r}>"

    def set(self, key: str, value: Any, *, timeout: float | None = None) -> None:
        """Write a key.

        Parameters
        ----------
        key : str
            Its name.
        value : plain data
            Numbers, strings, lists, dictionaries: what can be kept in a log.
        timeout : float, optional
            Seconds to wait for a majority.
        """
        self._home._command(self.id, KeySet(_key(key), _plain(value)), timeout)

    def get(self, key: str, *, timeout: float | None = None) -> Any:
        """Read a key: never older than any write that was acknowledged before; None if it was never written."""
        return self._home._command(self.id, KeyGet(_key(key)), timeout)

    def cas(self, key: str, expected: Any, value: Any, *, timeout: float | None = None) -> bool:
        """Write a key if it holds `expected`; say whether it did."""
        return bool(self._home._command(self.id, KeyCas(_key(key), _plain(expected), _plain(value)), timeout))


class Spread:
    """Calls a function with the items of one tuple."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        if not callable(fn):
            raise InvalidConfig(f"{fn!r} cannot be called; a map needs a function", field="fn")
        self.fn = fn
        self.__name__ = getattr(fn, "__name__", None) or type(fn).__name__
        with contextlib.suppress(TypeError, ValueError):
            self.__signature__ = inspect.signature(fn)  # so that its parameters are not taken for options

    def __call__(self, items: tuple[Any, ...], *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.fn(*items, *args, **kwargs)


def _as_group(group: Any) -> Iterable[Any]:
    return [group] if isinstance(group, str) or not isinstance(group, Iterable) else group


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise InvalidConfig(f"a key is a string, not {key!r}", field="key")
    check_readable(KeyGet(key))
    return key


def keywords_of(fn: Any) -> frozenset[str]:
    """The names of a function's parameters that can be given by name."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(each.name for each in parameters if each.kind in named)


def _plain(value: Any) -> Any:
    """Refuse what cannot be kept in a log, before anything is sent."""
    import msgspec

    try:
        return msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidConfig(
            f"the store keeps plain data (numbers, strings, lists, dictionaries), not {type(value).__name__}: {error}",
            field="value",
        ) from None
