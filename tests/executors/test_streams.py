from __future__ import annotations

import contextlib
import io
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.executors import ThreadRunner, streams
from agentflow.executors.streams import Capture


@given(st.lists(st.text(max_size=30), max_size=30), st.integers(2, 60))
def test_a_capture_keeps_the_beginning_and_the_end(texts, limit):
    capture = Capture(limit)
    for text in texts:
        assert capture.write(text) == len(text)
    whole, kept = "".join(texts), capture.take()
    if len(whole) <= limit:
        assert kept == whole
    else:
        tail = limit // 2
        left_out = f"\n... {len(whole) - limit:,} characters left out ...\n"
        assert kept == whole[: limit - tail] + left_out + whole[len(whole) - tail :]
    assert capture.take() == ""


def test_a_capture_of_much_text_holds_little():
    capture = Capture(1000)
    for _ in range(10_000):
        capture.write("x" * 100)
    assert sum(map(len, capture._tail)) < 700
    assert len(capture.take()) < 1100


def test_a_capture_takes_text_only():
    with pytest.raises(TypeError, match="must be str, not bytes"):
        Capture().write(b"raw")


def test_other_threads_print_where_they_did(runners, ends, capsys):
    runner = runners("threads", slots=1)
    begun, go = threading.Event(), threading.Event()
    runner.start(1, lambda: (print("inside"), begun.set(), go.wait(20)), ends)
    begun.wait(20)
    print("outside")
    print("outside too", file=sys.stderr)
    go.set()
    assert ends.outcome().stdout == "inside\n"
    assert capsys.readouterr() == ("outside\n", "outside too\n")


def test_with_capture_off_nothing_is_touched(runners, ends, capsys):
    before = sys.stdout
    runner = runners("threads", slots=1, capture=0)
    runner.start(1, lambda: (print("here"), sys.stdout is before)[1], ends)
    outcome = ends.outcome()
    assert (outcome.value, outcome.stdout) == (True, "")
    assert capsys.readouterr().out == "here\n"


class Parented(io.StringIO):
    """Like ipykernel's OutStream: a class of its own, with attributes that others set and call."""

    parent = None

    def set_parent(self, parent):
        self.parent = parent


@pytest.fixture
def busy():
    """A runner whose thread lives, so that the stand-ins are in place; ends when told."""
    made = []

    def make():
        begun, runner = threading.Event(), ThreadRunner("w1", 1)
        runner.start(1, begun.set, lambda key, outcome: None)
        begun.wait(20)
        made.append(runner)
        return runner

    yield make
    for runner in made:
        assert runner.close(20) == []


@pytest.fixture
def use_stdout():
    """Put a stream in within the test itself; pytest puts its own back between the phases of a test."""
    with contextlib.ExitStack() as stack:
        yield lambda stream=None: stack.enter_context(contextlib.redirect_stdout(stream or Parented()))


def test_the_stand_in_passes_for_the_stream(busy, use_stdout):
    stdout = use_stdout()
    runner = busy()
    assert sys.stdout is not stdout
    assert isinstance(sys.stdout, Parented)
    sys.stdout.set_parent({"msg": 1})
    assert stdout.parent == {"msg": 1}
    sys.stdout.parent = None
    assert stdout.parent is None
    assert repr(sys.stdout) == repr(stdout)
    sys.stdout.writelines(["a", "b"])
    print("c", flush=True)
    assert stdout.getvalue() == "abc\n"
    with pytest.raises(AttributeError):
        sys.stdout.no_such_thing  # noqa: B018
    runner.close(20)
    assert sys.stdout is stdout


def test_the_last_of_several_runners_takes_the_stand_ins_out(busy, use_stdout):
    stdout = use_stdout()
    first, second = busy(), busy()
    stand_in = sys.stdout
    first.close(20)
    assert sys.stdout is stand_in
    second.close(20)
    assert sys.stdout is stdout


def test_a_stream_the_user_put_in_meanwhile_stays(busy, use_stdout):
    use_stdout()
    runner = busy()
    theirs = io.StringIO()
    sys.stdout = theirs
    runner.close(20)
    assert sys.stdout is theirs


def test_a_redirection_that_ends_after_the_runner_leaves_a_harmless_stand_in(busy, use_stdout):
    stdout = use_stdout()
    runner, theirs = busy(), io.StringIO()
    with contextlib.redirect_stdout(theirs):
        print("theirs")
        runner.close(20)
    print("after")
    assert (theirs.getvalue(), stdout.getvalue()) == ("theirs\n", "after\n")
    stand_in = sys.stdout
    again = busy()
    assert sys.stdout is stand_in
    again.close(20)
    assert sys.stdout is stdout


def test_a_runner_begun_within_a_redirection_captures_and_the_redirection_ends_well(use_stdout, ends):
    stdout, theirs, runner = use_stdout(), io.StringIO(), ThreadRunner("w1", 2)
    with contextlib.redirect_stdout(theirs):
        runner.start(1, lambda: print("task"), ends)
        assert ends.outcome().stdout == "task\n"
        print("theirs")
    assert sys.stdout is stdout
    assert theirs.getvalue() == "theirs\n"
    assert runner.close(20) == []
    assert sys.stdout is stdout


def test_without_a_standard_output_tasks_are_captured_all_the_same(monkeypatch, ends):
    monkeypatch.setattr(sys, "stdout", None)
    runner = ThreadRunner("w1", 1)
    runner.start(1, lambda: print("task"), ends)
    assert ends.outcome().stdout == "task\n"
    print("nowhere")
    assert runner.close(20) == []
    assert sys.stdout is None


def test_too_much_output_loses_its_middle(runners, ends):
    runner = runners("threads", slots=1, capture=100)
    runner.start(1, lambda: print("a" * 1000), ends)
    text = ends.outcome().stdout
    assert text.startswith("a" * 50 + "\n... 901 characters left out")


def test_a_write_replaced_for_a_while_wraps_the_former_one_and_not_itself():
    """IPython does this to `sys.stdout` around every cell."""
    capture = streams.Capture()
    streams.begin(capture)
    try:
        stream = sys.stdout
        former, seen = stream.write, []

        def tee(text):
            seen.append(text)
            return former(text)

        stream.write = tee
        print("inside", end="")
        stream.write = former
        print(" after", end="")
    finally:
        streams.end()
    assert "".join(seen) == "inside"
    assert capture.take() == "inside after"
