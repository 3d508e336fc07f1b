"""Everything at once, from a seed: lost, doubled and late messages, crashes, slow disks, membership changes.

The network of `conftest` asserts as it goes: one leader a term, one entry an index, applied in order, one
configuration an index, and the machines' own invariants after every event. Here come the promises that
need the whole: reads are never stale, what is committed is stored, and after healing everything goes on.
"""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest

from agentflow.core.raft import (
    Campaign,
    ConfigChange,
    ForgetLeader,
    ProposeConfig,
    SnapshotReported,
    Transfer,
    Transition,
    Unreachable,
    Woken,
)
from agentflow.errors import Refused

SETTINGS: list[dict[str, Any]] = [
    {"pre_vote": True, "check_quorum": True},
    {"pre_vote": False, "check_quorum": False},
    {"pre_vote": True, "check_quorum": True, "lease_reads": True},
    {"pre_vote": True, "check_quorum": False, "apply_before_durable": True},
    {
        "pre_vote": False,
        "check_quorum": True,
        "max_size_per_message": 40,
        "max_inflight_messages": 2,
        "max_uncommitted_bytes": 60,
        "max_committed_bytes_per_ready": 40,
        "step_down_on_removal": True,
    },
]


class Chaos:
    """A network, and somebody who means it ill."""

    def __init__(self, network: Any, seed: int, *, membership: bool) -> None:
        self.net = network
        self.rng = random.Random(seed)
        self.membership = membership
        self.serial = 0
        self.asked: dict[tuple[str, bytes], int] = {}
        self.answered = 0
        self.acked = 0
        self.actions = [
            (40, self.deliver),
            (40, self.work),
            (10, self.pass_time),
            (14, self.propose),
            (5, self.read),
            (3, self.drop),
            (4, self.double),
            (3, self.sync),
            (2, self.toggle_disk),
            (1, self.crash),
            (3, self.restart),
            (1, self.partition),
            (4, self.heal),
            (1, self.compact),
            (1, self.meddle),
            (2, self.change),
        ]

    # --- what happens -------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        weights = [weight for weight, _ in self.actions]
        for _ in range(steps):
            (action,) = self.rng.choices([action for _, action in self.actions], weights)
            action()
            self.look()

    def look(self) -> None:
        """Check reads, and remember what somebody may call acknowledged."""
        for node, reads in self.net.reads.items():
            for read in reads:
                since = self.asked.pop((node, read.context), None)
                if since is not None:
                    assert read.index >= since, f"{node} read {read} though {since} was acknowledged"
                    self.answered += 1
            reads.clear()
        for machine in self.net.nodes.values():
            if machine.is_leader:
                self.acked = max(self.acked, machine.commit)
        for node in self.net.nodes:
            self.acked = max(self.acked, self.net.position(self.net.applied[node]))

    def pick(self) -> str | None:
        return self.rng.choice(sorted(self.net.nodes)) if self.net.nodes else None

    def deliver(self) -> None:
        """Deliver some messages, mostly in order."""
        queue = self.net.queue
        for _ in range(min(len(queue), self.rng.randint(1, 8))):
            position = 0 if self.rng.random() < 0.8 else self.rng.randrange(len(queue))
            self.net.deliver([queue.pop(position)])

    def work(self) -> None:
        for node in sorted(self.net.nodes):
            if self.rng.random() < 0.7:
                self.net.step(node)

    def pass_time(self) -> None:
        self.net.now += self.rng.choice((0.1, 0.5, 1.0, 3.0))
        for node in sorted(self.net.nodes):
            if self.net[node].deadline <= self.net.now and self.rng.random() < 0.8:
                self.net.handle(node, Woken())

    def propose(self) -> None:
        self.serial += 1
        leader = self.net.leader
        node = leader.id if leader is not None and self.rng.random() < 0.8 else self.pick()
        if node is not None:
            self.try_(node, lambda: self.net.propose(node, b"%d" % self.serial))

    def read(self) -> None:
        if (node := self.pick()) is not None:
            self.serial += 1
            context = b"r%d" % self.serial
            if self.try_(node, lambda: self.net.read(node, context)):
                self.asked[node, context] = self.acked

    def try_(self, node: str, act: Any) -> bool:
        before = self.net[node].copy()
        try:
            act()
        except Refused:
            after = self.net[node]
            before.now, before.touched = after.now, after.touched
            assert before == after, "a refusal changes nothing"
            return False
        return True

    def drop(self) -> None:
        queue = self.net.queue
        if queue:
            queue.pop(self.rng.randrange(len(queue)))

    def double(self) -> None:
        queue = self.net.queue
        if queue and len(queue) < 200:
            queue.insert(self.rng.randrange(len(queue) + 1), self.rng.choice(queue))

    def toggle_disk(self) -> None:
        node = self.pick()
        if node is None:
            return
        if node in self.net.slow:
            self.net.sync(node)
            self.net.slow.discard(node)
        else:
            self.net.slow.add(node)

    def sync(self) -> None:
        waiting = [node for node in sorted(self.net.nodes) if self.net.disks[node].pending]
        if waiting:
            node = self.rng.choice(waiting)
            self.net.sync(node, self.rng.randint(1, len(self.net.disks[node].pending)))

    def crash(self) -> None:
        if len(self.net.nodes) > 1 and (node := self.pick()) is not None:
            pending = len(self.net.disks[node].pending)
            self.net.crash(node, keep_writes=self.rng.randint(0, pending))
            self.net.slow.discard(node)
            self.asked = {key: since for key, since in self.asked.items() if key[0] != node}

    def restart(self) -> None:
        down = sorted(set(self.net.disks) - set(self.net.nodes))
        if down:
            self.net.restart(self.rng.choice(down))

    def partition(self) -> None:
        if (node := self.pick()) is not None:
            self.net.isolate(node)

    def heal(self) -> None:
        self.net.heal()

    def compact(self) -> None:
        node = self.pick()
        if node is not None and self.net[node].applied:
            self.net.compact(node, keep=self.rng.choice((0, 0, 3)))

    def meddle(self) -> None:
        node = self.pick()
        if node is None:
            return
        other = self.rng.choice(sorted(self.net.disks))
        event = self.rng.choice(
            [
                Campaign(),
                ForgetLeader(),
                Unreachable(other),
                SnapshotReported(other, self.rng.random() < 0.5),
                Transfer(other),
            ]
        )
        self.try_(node, lambda: self.net.handle(node, event))

    def change(self) -> None:
        leader = self.net.leader
        if not self.membership or leader is None:
            return
        spare = sorted(set("123456") - set(leader.tracker.progress))
        voters = list(leader.conf.voters)
        transition = self.rng.choice(list(Transition))
        change = ConfigChange(transition=Transition.AUTO)
        if not leader.conf.voters_outgoing:
            add = self.rng.sample(spare, min(len(spare), self.rng.randint(0, 2)))
            remove = self.rng.sample(voters, self.rng.randint(0, 1)) if len(voters) > 2 else []
            learn = [node for node in add if self.rng.random() < 0.3]
            change = ConfigChange.of(
                add=[node for node in add if node not in learn],
                learn=learn,
                remove=remove,
                transition=transition,
            )
        if self.try_(leader.id, lambda: self.net.handle(leader.id, ProposeConfig(change))):
            for node in sorted({single.node for single in change.changes} - set(self.net.disks)):
                self.net.join(node)

    # --- afterwards ---------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Heal everything; let time pass until a leader has served a proposal everywhere."""
        net = self.net
        net.heal()
        for node in sorted(net.slow):
            if node in net.nodes:
                net.sync(node)
        net.slow.clear()
        for node in sorted(set(net.disks) - set(net.nodes)):
            net.restart(node)
        net.run()
        for _ in range(400):
            self.look()
            leader = net.leader
            if leader is not None and not leader.conf.voters_outgoing and leader.heir is None:
                try:
                    index = net.propose(leader.id, b"last")
                except Refused:
                    index = -1
                net.run()
                members = [net[node] for node in leader.tracker.progress]
                if index > 0 and all(member.applied >= index for member in members):
                    self.check(members)
                    return
            elif leader is not None and leader.conf.voters_outgoing and not leader.conf.auto_leave:
                with contextlib.suppress(Refused):
                    net.handle(leader.id, ProposeConfig(ConfigChange()))
                net.run()
            due = min(machine.deadline for machine in net.nodes.values())
            net.now = max(net.now, due)
            for node in sorted(net.nodes):
                if net[node].deadline <= net.now:
                    net.handle(node, Woken())
            net.run()
        raise AssertionError(f"nothing is committed after healing: {list(net.nodes.values())}")

    def check(self, members: list[Any]) -> None:
        leader = next(member for member in members if member.is_leader)
        log = {item.index: item for item in leader.log.entries(leader.log.first)}
        for member in members:
            for item in member.log.entries(member.log.first, member.commit + 1):
                assert log.get(item.index, item) == item, "committed logs are equal"
        self.net.check_committed_stored()


def play(net: Any, seed: int, *, ids: int, steps: int, membership: bool, **settings: Any) -> Chaos:
    chaos = Chaos(net(ids, seed=seed, **settings), seed, membership=membership)
    chaos.run(steps)
    chaos.settle()
    return chaos


@pytest.mark.parametrize("seed", range(40))
def test_nothing_that_goes_wrong_breaks_a_promise(net, seed):
    settings = SETTINGS[seed % len(SETTINGS)]
    chaos = play(net, seed, ids=3 if seed % 2 else 5, steps=1500, membership=False, **settings)
    assert len(chaos.net.chosen) > 1


@pytest.mark.parametrize("seed", range(100, 140))
def test_memberships_change_in_the_middle_of_it(net, seed):
    settings = {**SETTINGS[seed % len(SETTINGS)], "step_down_on_removal": True}
    play(net, seed, ids=3, steps=1500, membership=True, **settings)


def test_the_chaos_is_real(net):
    """The faults land: elections are fought, messages pile up, reads are answered, snapshots travel."""
    leaders = answered = installed = 0
    for seed in range(20):
        chaos = play(net, seed, ids=3, steps=1500, membership=False, **SETTINGS[0])
        leaders += len(chaos.net.leaders)
        answered += chaos.answered
        installed += sum(
            type(event).__name__ == "SnapshotInstalled"
            for events in chaos.net.events.values()
            for event in events
        )
    assert leaders > 40
    assert answered > 50
    assert installed > 5


def test_the_same_seed_plays_the_same_game(net):
    games = [play(net, 3, ids=5, steps=800, membership=True, **SETTINGS[0]) for _ in range(2)]
    assert games[0].net.chosen == games[1].net.chosen
    assert {n: str(m) for n, m in games[0].net.nodes.items()} == {
        n: str(m) for n, m in games[1].net.nodes.items()
    }


def test_a_copy_made_in_the_middle_goes_on_alike(net):
    chaos = Chaos(net(3, seed=5, **SETTINGS[0]), 5, membership=False)
    chaos.run(600)
    for machine in chaos.net.nodes.values():
        twin = machine.copy()
        assert twin == machine
        now = chaos.net.now + 100
        for one in (machine, twin):
            one.handle(Woken(), now)
        assert machine.ready() == twin.ready()
        assert machine == twin
