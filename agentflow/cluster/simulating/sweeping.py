"""One scenario under many seeds, in many processes: a row a seed.

Law: a row depends on the scenario and its seed alone, not on the process, nor on the seeds before it.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import msgspec

from agentflow.check import Verdict
from agentflow.cluster.elections import candidacies
from agentflow.core.raft.events import Role
from agentflow.errors import InvalidConfig, InvariantViolated

if TYPE_CHECKING:
    import pandas as pd

    from agentflow.cluster.simulation import Simulation

__all__ = ["Trial", "sweep", "trials", "try_seed"]

CHUNK = 8
"""Seeds a process is given at once."""


class Trial(msgspec.Struct):
    """What came of one seed.

    Parameters
    ----------
    seed : int
        The seed.
    verdict : str
        `ok`, `violated`, `unknown`, or `error` where the run itself raised.
    violated : str
        The promises that were broken, with commas between them.
    explanation : str
        What happened.
    first_bad, first_bad_s : int, float
        Number and time of the event that broke the first of them; -1 and nan if none did.
    messages, delivered : int
        Messages sent, and those that arrived.
    elections : int
        Elections won.
    leader_s : float
        When the first leader was elected; nan if none was.
    commits : int
        The highest index committed.
    operations : int
        Questions of clients about keys that were answered.
    tasks : int
        Attempts that were begun.
    events : int
        Records of the trace.
    virtual_s, wall_s : float
        How long it was, and how long it took.
    landed : dict
        Faults that had an effect, by kind.
    line : str
        What makes a run again that broke something.
    """

    seed: int
    verdict: str = "ok"
    violated: str = ""
    explanation: str = ""
    first_bad: int = -1
    first_bad_s: float = math.nan
    messages: int = 0
    delivered: int = 0
    elections: int = 0
    leader_s: float = math.nan
    commits: int = 0
    operations: int = 0
    tasks: int = 0
    events: int = 0
    virtual_s: float = 0.0
    wall_s: float = 0.0
    landed: dict[str, int] = msgspec.field(default_factory=dict)
    line: str = ""

    @property
    def failed(self) -> bool:
        """Whether a promise is broken, or the run did not get to its end."""
        return self.verdict in ("violated", "error")


def try_seed(scenario: Callable[[int], Simulation], seed: int) -> Trial:
    """Run a scenario with a seed, and judge it.

    Parameters
    ----------
    scenario : callable
        Takes a seed; gives the simulation that it made and ran.
    seed : int
        The seed.
    """
    began = time.perf_counter()
    trial = Trial(seed)
    # The objects of a run live until its end, and then go together: looking for those that went before
    # costs a fifth of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        _run(scenario, trial)
    except InvariantViolated as error:
        verdict = getattr(error, "verdict", None)
        trial.verdict, trial.violated, trial.explanation = "violated", type(error).__name__, str(error)
        if isinstance(verdict, Verdict):
            _blame(trial, verdict)
    except Exception as error:
        trial.verdict, trial.violated = "error", type(error).__name__
        trial.explanation = "".join(traceback.format_exception(error)[-4:]).strip()
    finally:
        if collecting:
            gc.enable()
        gc.collect()
    trial.wall_s = time.perf_counter() - began
    return trial


def _run(scenario: Callable[[int], Simulation], trial: Trial) -> None:
    sim = scenario(trial.seed)
    verdict = sim.check()
    trial.verdict, trial.explanation = str(verdict.outcome), verdict.explanation
    trial.virtual_s = sim.now
    if verdict.is_violated:
        _blame(trial, verdict)
    _count(sim, trial)


def _blame(trial: Trial, verdict: Verdict) -> None:
    trial.violated = ", ".join(sorted({part.promise for part in verdict.violations()}))
    trial.explanation = verdict.explanation
    trial.line = verdict.reproduction.line if verdict.reproduction else ""
    trial.first_bad = getattr(verdict.first_bad, "seq", -1)
    trial.first_bad_s = getattr(verdict.first_bad, "time", math.nan)


def _count(sim: Simulation, trial: Trial) -> None:
    kinds: dict[str, int] = {}
    elected = False
    for record in sim.trace:
        kind = record.kind
        kinds[kind] = kinds.get(kind, 0) + 1
        if kind == "commit":
            trial.commits = max(trial.commits, getattr(record.payload, "index", 0))
        elif kind == "role" and getattr(record.payload, "role", None) is Role.LEADER and not elected:
            elected, trial.leader_s = True, record.time
    trial.messages = kinds.get("send", 0) + kinds.get("echo", 0)
    trial.delivered = kinds.get("deliver", 0)
    trial.operations = kinds.get("return", 0)
    trial.tasks = kinds.get("execute", 0)
    trial.events = len(sim.trace)
    trial.elections = sum(each.outcome == "won" for each in candidacies(sim.trace))
    trial.landed = sim.landed()


def trials(
    scenario: Callable[[int], Simulation], seeds: Iterable[int], *, processes: int | None = None
) -> Iterator[Trial]:
    """Try many seeds; give what came of each as soon as it is known.

    Parameters
    ----------
    scenario : callable
        As for `try_seed`. Functions from a cell go to other processes too.
    seeds : iterable of int
        The seeds.
    processes : int, optional
        How many processes; 1 means this one. By default as many as there are processors.
    """
    count = (os.cpu_count() or 1) if processes is None else processes
    if count < 1:
        raise InvalidConfig(f"processes={processes!r} is no number above 0", field="processes")
    if count == 1:
        for seed in seeds:
            yield try_seed(scenario, seed)
        return
    import cloudpickle

    sent = cloudpickle.dumps(scenario)
    chunks = _chunks(list(seeds))
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting: set[Future[list[Trial]]] = set()
        try:
            for chunk in chunks:
                waiting.add(pool.submit(_several, sent, chunk))
                if len(waiting) >= 2 * count:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _chunks(seeds: Sequence[int]) -> Iterator[Sequence[int]]:
    return (seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK))


def _several(sent: bytes, seeds: Sequence[int]) -> list[Trial]:
    import cloudpickle

    scenario = cloudpickle.loads(sent)
    return [try_seed(scenario, seed) for seed in seeds]


def sweep(
    scenario: Callable[[int], Simulation], seeds: Iterable[int] = range(100), *, processes: int = 1
) -> pd.DataFrame:
    """Run a scenario under many seeds; give a table with a row for each, in their order.

    Parameters
    ----------
    scenario : callable
        Takes a seed; gives the simulation that it made and ran. It is judged with `check()`.
    seeds : iterable of int
        The seeds.
    processes : int
        How many processes share the work.

    Returns
    -------
    DataFrame
        The fields of `Trial` as columns. A row's run is `scenario(row.seed)`, and the place to look at
        `.rewind(to=row.first_bad_s)`.

    Examples
    --------
    >>> from agentflow import Simulation
    >>> table = sweep(lambda seed: Simulation(masters=3, seed=seed).run_for(10), seeds=range(3))
    >>> list(table.verdict), bool(table.leader_s.between(2, 6).all())
    (['ok', 'ok', 'ok'], True)
    """
    import pandas as pd

    order = list(seeds)
    found: dict[int, Any] = {trial.seed: trial for trial in trials(scenario, order, processes=processes)}
    rows = [msgspec.structs.asdict(found[seed]) for seed in order]
    table = pd.DataFrame(rows, columns=list(Trial.__struct_fields__))
    table["verdict"] = pd.Categorical(table["verdict"], ["ok", "violated", "unknown", "error"])
    return table
