"""Situations that everybody who learns Raft should have seen, each a simulation that stands where it shows.

What is done by hand in them is a script: `split_vote().script()` says how it is made. They can be rewound,
branched, drawn and judged like any other simulation, and they end the same for every seed that they work
with; the seed decides the latencies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentflow.cluster.simulation import Simulation
from agentflow.core.raft import RaftConfig, RaftStatus
from agentflow.errors import InvalidConfig
from agentflow.ids import NodeId

__all__ = [
    "SCENARIOS",
    "avoided_split_vote",
    "disruptive_server",
    "figure_8",
    "log_catch_up",
    "partitioned_leader",
    "scenario",
    "split_vote",
]

PATIENCE = 10.0
"""Virtual seconds within which what a scenario waits for has come."""


def scenario(name: str, seed: int = 7, **options: Any) -> Simulation:
    """Give a scenario by its name.

    Parameters
    ----------
    name : str
        One of `SCENARIOS`; hyphens and underscores count as spaces.
    seed : int
        Decides the latencies.
    **options
        What that scenario takes besides.

    Examples
    --------
    >>> scenario("figure 8").check()
    <Verdict ok: simulation>
    """
    make = SCENARIOS.get(name.replace("_", " ").replace("-", " ").lower())
    if make is None:
        raise InvalidConfig(
            f"there is no scenario {name!r}; take one of {', '.join(SCENARIOS)}", field="name"
        )
    return make(seed, **options)


def split_vote(seed: int = 7, *, masters: int = 3) -> Simulation:
    """Everybody's patience ends at once, and everybody votes for himself: nobody has a majority.

    It stands where the votes of the first term are counted. Let it run on, and random time-outs will have
    one master ask before the others.

    Examples
    --------
    >>> sim = split_vote()
    >>> sim.leader, sim.frames.elections().votes.tolist()
    (None, [1, 1, 1])
    >>> sim.run_until(lambda s: s.leader)
    True
    """
    sim = _cluster(masters, seed, pre_vote=False)
    for master in sim.masters:
        sim.timeout(master)
    # Every request for a vote is answered within two ways, and no time-out is that short.
    return sim.run_for(0.02)


def avoided_split_vote(seed: int = 7, *, masters: int = 3) -> Simulation:
    """One master's patience ends well before the others': it has all votes before they ask for any.

    Examples
    --------
    >>> sim = avoided_split_vote()
    >>> sim.leader, sim.frames.elections().votes.tolist()
    ('master-1', [2])
    """
    sim = _cluster(masters, seed, pre_vote=False)
    sim.timeout("master-1")
    _await(sim, lambda: sim.leader == "master-1")
    return sim


def log_catch_up(seed: int = 7, *, entries: int = 12) -> Simulation:
    """A follower comes back that missed much and holds what nobody else does; the leader finds where they agree.

    The first leader was cut off with entries that it could not commit. The second has committed others in
    their place, and the third, who assumes that everybody's log is like its own, is told where that is not
    so. It stands where all logs are the same again.

    Parameters
    ----------
    seed : int
        Decides the latencies.
    entries : int
        How many entries the one that comes back has missed.

    Examples
    --------
    >>> sim = log_catch_up()
    >>> len({master.status().last_index for master in sim.masters.values()})
    1
    >>> [record.payload.hint for record in sim.trace if record.kind == "rejected"]
    [3]
    """
    sim = _cluster(3, seed, max_inflight_messages=4)
    old = _lead(sim, "master-1")
    sim.partition({old}, _but(sim, old))
    for number in range(2):
        sim.request("c", "set", "lost", number)
        sim.run_for(0.02)
    _await(sim, lambda: sim.leader not in (None, old))
    for number in range(entries):
        sim.client("d").set(f"kept-{number}", number)
    (third,) = _but(sim, old, sim.leader or old)
    sim.transfer_leadership(third)
    sim.heal()
    last = _status(sim, sim.leader or old).last_index
    _await(sim, lambda: all(_status(sim, master).commit_index >= last for master in sim.masters))
    return sim


def figure_8(seed: int = 7) -> Simulation:
    """Figure 8 of the Raft paper: an entry of an earlier term is on a majority and yet not committed.

    It stands at the end: `master-5` has put its own entry in the place of the one that a majority held. No
    promise is broken, for the leader of the third term did not count copies of an entry of the first. The
    stages b, c and d of the figure begin with the three crashes of its trace.

    Examples
    --------
    >>> sim = figure_8()
    >>> b, c, d = (record for record in sim.trace if record.kind == "crash")
    >>> before = sim.state_at(d).masters
    >>> [name for name, status in before.items() if status.last_index >= 2]
    ['master-1', 'master-2', 'master-3']
    >>> before["master-1"].commit_index
    1
    """
    config = {"pre_vote": False, "check_quorum": False, "max_size_per_message": 1}
    sim = _cluster(5, seed, **config, max_inflight_messages=1)
    _lead(sim, "master-1")
    sim.partition({"master-1", "master-2"}, {"master-3", "master-4", "master-5"})
    sim.request("c", "set", "x", "of the first term")
    _await(sim, lambda: _status(sim, "master-2").last_index == 2)
    sim.kill("master-1")
    sim.hold(source="master-5", type="MsgApp")
    _campaign(sim, "master-5")
    sim.kill("master-5")
    _lose_held(sim)
    sim.restart("master-1")
    sim.partition({"master-1", "master-2", "master-3"}, {"master-4", "master-5"})
    _campaign(sim, "master-1")
    _await(sim, lambda: _status(sim, "master-1").peers["master-3"].match == 2)
    assert _status(sim, "master-1").commit_index < 2, "copies of an entry of an earlier term do not count"
    sim.hold(source="master-1")
    sim.kill("master-1")
    _lose_held(sim)
    sim.partition({"master-1", "master-2"}, {"master-3", "master-4", "master-5"})
    sim.restart("master-5")
    _campaign(sim, "master-5")
    _await(sim, lambda: sim.leader == "master-5")
    sim.heal()
    sim.restart("master-1")
    last = _status(sim, "master-5").last_index
    _await(sim, lambda: all(_status(sim, master).commit_index >= last for master in sim.masters))
    return sim


def partitioned_leader(seed: int = 7) -> Simulation:
    """The leader is cut off with a minority: it can commit nothing, and another leads the majority.

    Whoever asks the old leader gets no answer; it steps down when it has heard from no majority for an
    election time-out. It stands after healing, when what the minority took is undone everywhere.

    Examples
    --------
    >>> sim = partitioned_leader()
    >>> sim.leader != "master-1", sim.client("d").get("x"), sim.check()
    (True, 'majority', <Verdict ok: simulation>)
    """
    sim = _cluster(5, seed)
    old = _lead(sim, "master-1")
    sim.client("c").set("x", "both")
    sim.client("d")
    sim.partition({old, "master-2", "c"}, _but(sim, old, "master-2") | {"d"})
    sim.request("c", "set", "x", "minority", timeout=1.0)
    _await(sim, lambda: sim.leader not in (None, old))
    sim.client("d").set("x", "majority")
    _await(sim, lambda: _status(sim, old).role != "leader")
    sim.run_for(1.0)
    sim.heal()
    last = _status(sim, sim.leader or old).last_index
    _await(sim, lambda: all(_status(sim, master).commit_index >= last for master in sim.masters))
    return sim


def disruptive_server(seed: int = 7, *, pre_vote: bool = True) -> Simulation:
    """A master is alone for twenty time-outs and comes back.

    With pre-vote it has asked whether it could win, and its term has not moved: the leader stays. Without,
    it comes back with a term far above all others', and the leader must give way.

    Parameters
    ----------
    seed : int
        Decides the latencies.
    pre_vote : bool
        Whether candidates ask first (thesis 9.6). Without it nobody sticks to his leader either.

    Examples
    --------
    >>> sim = disruptive_server()
    >>> sim.leader, sim.masters["master-3"].status().term
    ('master-1', 1)
    >>> disruptive_server(pre_vote=False).masters["master-3"].status().term > 10
    True
    """
    sim = _cluster(3, seed, pre_vote=pre_vote, check_quorum=pre_vote)
    leader = _lead(sim, "master-1")
    sim.partition({"master-3"}, _but(sim, "master-3"))
    sim.run_for(20 * 0.3)
    assert sim.leader == leader
    sim.heal()
    sim.run_for(1.0)
    _await(sim, lambda: sim.leader is not None)
    return sim


SCENARIOS: dict[str, Callable[..., Simulation]] = {
    "split vote": split_vote,
    "avoided split vote": avoided_split_vote,
    "log catch up": log_catch_up,
    "figure 8": figure_8,
    "partitioned leader": partitioned_leader,
    "disruptive server": disruptive_server,
}
"""The scenarios by name."""


# --- how they are made ------------------------------------------------------------------------------------


def _cluster(masters: int, seed: int, **config: Any) -> Simulation:
    return Simulation(masters=masters, seed=seed, config=RaftConfig.fast(**config))


def _status(sim: Simulation, master: NodeId) -> RaftStatus:
    status = sim.masters[master].status()
    assert status is not None, f"{master} is down"
    return status


def _but(sim: Simulation, *without: NodeId) -> set[NodeId]:
    return {master for master in sim.masters if master not in without}


def _await(sim: Simulation, come: Callable[[], bool]) -> None:
    if not sim.run_until(lambda _: come(), limit=PATIENCE):
        raise AssertionError(f"the scenario went another way with seed {sim.seed}; take another seed")


def _lead(sim: Simulation, master: NodeId) -> NodeId:
    """Have a master elected, and everybody know it."""
    sim.timeout(master)
    _await(sim, lambda: sim.leader == master)
    _await(sim, lambda: all(_status(sim, other).commit_index >= 1 for other in sim.masters))
    return master


def _campaign(sim: Simulation, master: NodeId) -> None:
    """Let a master stand until it is elected: the others may be ahead of its term."""
    for _ in range(20):
        sim.timeout(master)
        if sim.run_until(lambda _: _status(sim, master).role == "leader", limit=0.05):
            return
    raise AssertionError(f"{master} is not elected with seed {sim.seed}; take another seed")


def _lose_held(sim: Simulation) -> None:
    """Lose what is held on its wires, and hold no more."""
    for number in sim.pending().query("held").message:
        sim.drop(int(number))
    sim.release()
