from __future__ import annotations

import threading
import types
from functools import partial

import pytest

from agentflow.errors import Unpicklable
from agentflow.executors.pickling import find_culprit, pack, unpack

LOCK = threading.Lock()


class Holder:
    def __init__(self):
        self.inner = {"guard": threading.Lock()}

    def method(self):
        return self.inner


def by_value(function):
    """Make a function of this module one that must be pickled by value, as a notebook's is."""
    function.__module__ = "__main__"
    function.__qualname__ = function.__name__
    return function


def closure():
    guard = threading.Lock()

    def task():
        return guard

    return task


def default():
    def task(x=threading.Lock()):  # noqa: B008
        return x

    return by_value(task)


def uses_global():
    def task():
        return LOCK

    return by_value(task)


def uses_global_within():
    def task():
        return [LOCK for _ in range(3)]

    return by_value(task)


def named_like_an_attribute():
    def read(source):
        with LOCK:
            return source.read()

    names = read.__globals__ | {"read": read}
    return by_value(types.FunctionType(read.__code__, names, "read"))


@pytest.mark.parametrize(
    ("value", "culprit"),
    [
        (threading.Lock(), ""),
        ([1, threading.Lock()], "item 1 (a lock)"),
        ({"a": (threading.Lock(),)}, "item 'a', item 0 (a lock)"),
        (Holder(), "attribute 'inner' of a Holder, item 'guard' (a lock)"),
        (
            Holder().method,
            "the object of method method(), attribute 'inner' of a Holder, item 'guard' (a lock)",
        ),
        (partial(pow, 1, threading.Lock()), "argument 2 of pow() (a lock)"),
        (partial(pow, mod=threading.Lock()), "argument 'mod' of pow() (a lock)"),
        (partial(closure(), 1), "function task(), variable 'guard' of task() (a lock)"),
        (closure(), "variable 'guard' of task() (a lock)"),
        (default(), "default 1 of task() (a lock)"),
        (uses_global(), "global variable 'LOCK' of task() (a lock)"),
        (uses_global_within(), "global variable 'LOCK' of task() (a lock)"),
        (named_like_an_attribute(), "global variable 'LOCK' of read() (a lock)"),
        (iter([]), ""),
    ],
    ids=str,
)
def test_the_part_that_fails_is_found(value, culprit):
    assert find_culprit(value) == culprit


def test_what_can_travel_does():
    def add(a, b):
        return a + b

    assert unpack(pack(partial(add, 40), "the call"))(2) == 42


def test_what_cannot_is_told_in_one_sentence():
    with pytest.raises(Unpicklable) as told:
        pack({"a": threading.Lock()}, "the result")
    assert str(told.value).startswith(
        "the result cannot be sent to another process: item 'a' (a lock) cannot be"
    )
    with pytest.raises(Unpicklable, match="process: a lock cannot be pickled"):
        pack(threading.Lock(), "the result")


def test_a_value_that_contains_itself_is_searched_to_an_end():
    loop: list = [threading.Lock()]
    loop.insert(0, loop)
    assert find_culprit(loop) == "item 1 (a lock)"
