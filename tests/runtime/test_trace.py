from __future__ import annotations

import enum
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.record import Record
from agentflow.errors import InvalidConfig
from agentflow.runtime.trace import Trace, canonical, vector_clocks


def test_records_are_numbered_and_keep_the_newest():
    trace = Trace(limit=10)
    for number in range(1000):
        trace.append(float(number), "n", "note", payload=number)
    assert [record.seq for record in trace] == list(range(990, 1000))
    assert (len(trace), trace.dropped, trace.next, trace.last.payload) == (10, 990, 1000, 999)


@given(st.integers(1, 30), st.integers(0, 300), st.integers(-5, 320))
@settings(max_examples=200, deadline=None)
def test_since_is_a_slice_of_what_is_kept(limit, count, seq):
    trace = Trace(limit=limit)
    for number in range(count):
        trace.append(0.0, "n", "note", payload=number)
    kept = list(range(max(0, count - limit), count))
    assert [record.seq for record in trace.since(seq)] == [number for number in kept if number >= seq]


def test_readers_in_other_threads_always_see_an_unbroken_run():
    trace = Trace(limit=100)
    done = threading.Event()
    broken = []

    def read():
        position = 0
        while not done.is_set():
            records = trace.since(position)
            numbers = [record.seq for record in records]
            if numbers and (numbers != list(range(numbers[0], numbers[-1] + 1)) or numbers[0] < position):
                broken.append(numbers)
            if numbers:
                position = numbers[-1] + 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(60_000):
        trace.append(0.0, "n", "note")
    done.set()
    for reader in readers:
        reader.join()
    assert broken == []


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "many"])
def test_a_limit_that_keeps_nothing_is_refused(limit):
    with pytest.raises(InvalidConfig):
        Trace(limit=limit)


# --- clocks ----------------------------------------------------------------------------------------------

moves = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["note", "send", "deliver"])), max_size=40)


@given(moves, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_clocks_agree_with_happened_before(plan, chance):
    trace = Trace()
    flying, edges = [], []
    last: dict[str, int] = {}
    for node, kind in plan:
        cause, seen = -1, 0
        if kind == "deliver":
            if not flying:
                continue
            sent = flying[chance.randrange(len(flying))]  # may be taken again: a duplicate
            cause, seen = sent.seq, sent.lamport
            edges.append((sent.seq, trace.next))
        if node in last:
            edges.append((last[node], trace.next))
        record = trace.append(0.0, node, kind, cause=cause, seen=seen)
        last[node] = record.seq
        if kind == "send":
            flying.append(record)
    before = [set() for _ in range(trace.next)]
    for first, second in sorted(edges, key=lambda edge: edge[1]):
        before[second] |= before[first] | {first}
    records, clocks = list(trace), trace.vector_clocks()
    for second in range(len(records)):
        for first in range(len(records)):
            smaller = first != second and all(
                count <= clocks[second].get(node, 0) for node, count in clocks[first].items()
            )
            assert smaller == (first in before[second])
            if first in before[second]:
                assert records[first].lamport < records[second].lamport


def test_what_the_network_does_has_no_clock_of_its_own():
    trace = Trace()
    sent = trace.append(0.0, "a", "send", message=0)
    lost = trace.append(0.0, "", "drop", cause=sent.seq, message=0, seen=sent.lamport)
    assert lost.lamport == sent.lamport + 1
    assert trace.lamport("") == 0
    assert trace.lamport("a") == 1


def test_a_delivery_whose_sending_was_trimmed_still_has_a_clock():
    records = [Record(7, 0.0, "b", "deliver", 9, 3)]
    assert vector_clocks(records) == [{"b": 1}]


# --- the digest ------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Point(msgspec.Struct, frozen=True):
    x: int
    y: object


@dataclass
class Plain:
    x: object


class Opaque:
    __slots__ = ()


class Fields:
    def __init__(self, **fields):
        self.__dict__.update(fields)


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}),
        ({"x", "y", "z"}, {"z", "y", "x"}, {"x", "y"}),
        (Point(1, {"p", "q"}), Point(1, {"q", "p"}), Point(1, {"p"})),
        (Point(1, 2**80), Point(1, 2**80), Point(1, 2**81)),
        (Plain(Colour.RED), Plain(Colour.RED), Plain("blue")),
        ({(1, 2): "a", "b": 1}, {"b": 1, (1, 2): "a"}, {(1, 3): "a", "b": 1}),
        ({1, "a", None}, {None, "a", 1}, {1, "a"}),
        (ValueError("x"), ValueError("x"), KeyError("x")),
        (Opaque(), Opaque(), object()),
        (Fields(a=1), Fields(a=1), Fields(a=2)),
        (len, len, print),
        (int, int, float),
        (1.5 + 2j, 1.5 + 2j, 1.5 + 3j),
    ],
)
def test_equal_values_encode_alike_and_others_do_not(one, same, other):
    assert canonical(one) == canonical(same) != canonical(other)


def test_a_value_that_contains_itself_can_be_encoded():
    loop: list[object] = [1]
    loop.append(loop)
    assert canonical(loop) == canonical(loop)


@pytest.mark.parametrize("hash_seed", ["0", "99"])
def test_the_digest_does_not_depend_on_the_process(hash_seed):
    program = (
        "from agentflow.runtime.trace import Trace\n"
        "trace = Trace()\n"
        "for node in ('a', 'b'):\n"
        "    trace.append(0.1, node, 'note', payload={'set': {'x', 'y', 'zz'}, 'call': print, 'o': object()})\n"
        "print(trace.digest())\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    outputs = set()
    for seed in ("1", hash_seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True, timeout=60
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_the_digest_tells_the_last_bit():
    first, second = Trace(), Trace()
    first.append(0.1 + 0.2, "a", "note")
    second.append(0.3, "a", "note")
    assert first.digest() != second.digest()
