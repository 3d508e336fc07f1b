"""The checker against an obvious one, against histories of many clients, and within its budgets."""

from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentflow.check import ANY, History, KeyValue, Operation, Outcome, Register, check_linearizable
from agentflow.check.explain import search_for
from agentflow.check.history import FOREVER
from agentflow.check.search import ModelProblem, Search, arrange
from agentflow.errors import InvalidConfig

# --- the obvious model --------------------------------------------------------------------------------


def obviously_linearizable(operations, model):
    """Try every order of every subset that holds all that returned."""
    operations = list(operations)
    return any(
        is_order(order, model)
        for size in range(sum(not each.is_pending for each in operations), len(operations) + 1)
        for order in permutations(operations, size)
        if sum(not each.is_pending for each in order) == sum(not each.is_pending for each in operations)
    )


def is_order(order, model):
    """Whether this order respects real time and every answer."""
    state, latest = model.initial, -1.0
    for each in order:
        if each.returned < latest:
            return False
        latest = max(latest, each.invoked)
        answer, state = model.apply(state, each.function, each.argument)
        if not each.is_pending and answer != each.result:
            return False
    return True


class Counted:
    """A model of a user's own, that declares nothing."""

    initial = 0

    def apply(self, state, function, argument):
        return (state, state) if function == "get" else (ANY, state + argument)


TEXTS = ["a", "b", "ab", "aa", ""]


@st.composite
def operations(draw, functions, values=TEXTS):
    """Draw answers at random for overlapping operations; few such histories have an order, but some do."""
    drawn = []
    for process in range(draw(st.integers(1, 6))):
        function = draw(st.sampled_from(functions))
        start = draw(st.integers(0, 12))
        end = draw(st.sampled_from([FOREVER, *range(start, 14)]))
        argument = result = None
        if function == "get":
            result = draw(st.sampled_from([None, *values, "aab", "ba"]))
        elif function == "cas":
            argument = draw(st.sampled_from([None, *values])), draw(st.sampled_from(values))
            result = draw(st.booleans())
        else:
            argument = draw(st.sampled_from(values))
        drawn.append(Operation(process, function, argument, result, start, end))
    return drawn


@st.composite
def executions(draw, functions, values=TEXTS):
    """Draw operations that took effect in an order, and perhaps change one answer."""
    model, state, drawn = KeyValue(), None, []
    for process in range(draw(st.integers(1, 6))):
        function = draw(st.sampled_from(functions))
        start = process * 2 - draw(st.integers(0, 6))
        end = draw(st.sampled_from([FOREVER, *range(process * 2, process * 2 + 7)]))
        argument = None
        if function == "cas":
            argument = draw(st.sampled_from([state, *values])), draw(st.sampled_from(values))
        elif function != "get":
            argument = draw(st.sampled_from(values))
        answer, state = model.apply(state, function, argument)
        drawn.append(
            Operation(process, function, argument, None if answer is ANY else answer, max(start, 0), end)
        )
    if draw(st.booleans()):
        gets = [at for at, each in enumerate(drawn) if each.function == "get"]
        if gets:
            at = draw(st.sampled_from(gets))
            each = drawn[at]
            drawn[at] = Operation(
                each.process, "get", None, draw(st.sampled_from([None, *values])), each.invoked, each.returned
            )
    return drawn


def agrees(history, model):
    expected = obviously_linearizable(history, model)
    verdict = check_linearizable(history, model)
    assert verdict.outcome is (Outcome.OK if expected else Outcome.VIOLATED)
    if expected:
        order = verdict.facts["orders"].get(None, ())
        assert is_order(order, model)
        assert {each for each in history if not each.is_pending} <= set(order)
        assert len(order) == len(set(order))
    else:
        core = verdict.facts["core"]
        assert not obviously_linearizable(core, model)
        assert verdict.first_bad in history
        assert verdict.first_bad in verdict.evidence
        assert is_order(verdict.facts["order"], model)
    plain = Search(arrange(history, model), ModelProblem(arrange(history, model), model))
    plain.advance(10**6)
    assert plain.verdict is expected


REGISTER = ["get", "put", "cas"]
STRINGS = ["get", "get", "append", "append", "put"]
EVERYTHING = ["get", "put", "append", "cas"]


@settings(max_examples=300, deadline=None)
@given(st.one_of(operations(REGISTER), executions(REGISTER), executions(REGISTER)))
def test_registers_agree_with_every_permutation(history):
    agrees(history, Register())


@settings(max_examples=300, deadline=None)
@given(st.one_of(operations(STRINGS), executions(STRINGS), executions(STRINGS)))
def test_strings_that_grow_agree_with_every_permutation(history):
    agrees(history, KeyValue())


@settings(max_examples=300, deadline=None)
@given(st.one_of(operations(EVERYTHING), executions(EVERYTHING), executions(EVERYTHING)))
@example([Operation(0, "append", "", None, 0, 1), Operation(1, "get", None, "", 2, 3)])
@example([Operation(0, "append", "", None, 0, 1), Operation(1, "get", None, None, 2, 3)])
def test_everything_together_agrees_with_every_permutation(history):
    agrees(history, KeyValue())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["get", "add"]), st.integers(0, 3), st.integers(0, 8), st.integers(0, 4)),
        min_size=1,
        max_size=6,
    )
)
def test_a_users_model_agrees_with_every_permutation(rows):
    history = [
        Operation(at, function, None if function == "get" else value, value, start, start + length)
        for at, (function, value, start, length) in enumerate(rows)
    ]
    expected = obviously_linearizable(history, Counted())
    assert bool(check_linearizable(history, Counted())) is expected


# --- many clients -------------------------------------------------------------------------------------

MIXES = {
    "appends": (45, 55, 0, 0),
    "all": (45, 45, 10, 0),
    "puts": (30, 30, 40, 0),
    "few gets": (10, 80, 10, 0),
}


@pytest.mark.parametrize("keys", [10, 1])
@pytest.mark.parametrize("mix", MIXES)
def test_fifty_clients_of_a_good_store_are_decided_in_about_one_step_an_operation(simulate, mix, keys):
    history, _ = simulate(3, clients=50, keys=keys, total=3000, mix=MIXES[mix])
    verdict = check_linearizable(history, KeyValue(initial=""))
    assert verdict, verdict.explanation
    assert verdict.facts["steps"] < 15_000
    for key, order in verdict.facts["orders"].items():
        assert len(order) == sum(each.key == key for each in history)
        assert is_order(order, KeyValue(initial=""))


@pytest.mark.parametrize("bug", ["stale", "lost", "twice"])
@pytest.mark.parametrize("mix", ["appends", "all"])
def test_fifty_clients_of_a_spoiled_store_are_refuted_at_once(simulate, mix, bug):
    history, spoiled = simulate(5, clients=50, keys=10, total=6000, mix=MIXES[mix], bug=bug)
    assert spoiled > 10
    verdict = check_linearizable(history, KeyValue(initial=""))
    assert verdict.is_violated
    assert verdict.facts["steps"] < 20_000
    assert verdict.first_bad.function == "get"
    assert search_for(verdict.facts["core"], KeyValue(initial="")).operations
    assert not check_linearizable(verdict.facts["core"], KeyValue(initial=""), explain=False)


def test_a_spoiled_store_of_one_key_does_not_hang(simulate):
    history, _ = simulate(7, clients=50, keys=1, total=3000, mix=MIXES["all"], bug="twice")
    verdict = check_linearizable(history, KeyValue(initial=""), explain=False)
    assert verdict.is_violated
    assert verdict.facts["steps"] < 300_000


@pytest.mark.parametrize("values", [3, 100])
def test_registers_with_repeated_values_and_lost_answers_are_decided(simulate, values):
    history, _ = simulate(
        2,
        clients=20,
        keys=5,
        total=1500,
        mix=(45, 0, 40, 15),
        unique=False,
        values=values,
        initial=None,
        pending=0.02,
    )
    verdict = check_linearizable(history, Register())
    assert verdict, verdict.explanation


# --- budgets ------------------------------------------------------------------------------------------


def hard(clients, key=None):
    """Make concurrent changes after which somebody saw what none of their orders gives."""
    changes = [Operation(each, "add", 2**each, None, 0, 10, key) for each in range(clients)]
    return [*changes, Operation("r", "get", None, -1, 11, 12, key)]


class Noted(Counted):
    """States that never meet again, so that nothing can be remembered."""

    initial = ()

    def apply(self, state, function, argument):
        return (len(state), state) if function == "get" else (ANY, (*state, argument))


def test_a_search_that_is_too_long_ends_as_unknown():
    verdict = check_linearizable(hard(14), Noted(), steps=5000)
    assert verdict.outcome is Outcome.UNKNOWN
    assert "not decided within 50" in verdict.explanation
    assert verdict.facts["undecided"] == [None]


def test_a_search_that_remembers_too_much_ends_as_unknown():
    verdict = check_linearizable(hard(14), Noted(), memory_mb=0.5)
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.facts["steps"] < 50_000


def test_the_caller_can_end_a_search():
    asked = []
    verdict = check_linearizable(hard(14), Noted(), enough=lambda: len(asked) > 3 or asked.append(1))
    assert verdict.outcome is Outcome.UNKNOWN


def test_a_key_that_cannot_be_decided_does_not_hide_another_that_is_refuted():
    history = hard(14, "stuck") + hard(2, "wrong")
    verdict = check_linearizable(history, Noted(), steps=100_000)
    assert verdict.is_violated
    assert verdict.facts["key"] == "wrong"
    assert verdict.facts["steps"] < 3000


def test_a_key_given_up_for_its_memory_does_not_stop_the_others():
    history = [*hard(14, "stuck"), Operation("c", "get", None, 0, 0, 1, "fine")]
    verdict = check_linearizable(history, Noted(), memory_mb=0.5)
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.facts["undecided"] == ["stuck"]
    assert list(verdict.facts["orders"]) == ["fine"]


def test_a_search_in_portions_is_the_same_search():
    history = hard(5)
    whole, parts = (Search(arrange(history, Counted()), ModelProblem(history, Counted())) for _ in range(2))
    whole.advance(10**6)
    while parts.verdict is None:
        parts.advance(1)
    assert (whole.verdict, whole.steps) == (parts.verdict, parts.steps) == (False, whole.steps)


# --- what it says -------------------------------------------------------------------------------------


def test_the_explanation_names_the_answer_that_no_order_gives():
    history = History()
    for value in "abc":
        history.invoke("w", "put", value, key="x")
        history.returns("w")
    history.invoke("r1", "get", key="x")
    history.returns("r1", "c")
    history.invoke("r2", "get", key="x")
    history.returns("r2", "b")
    history.invoke("r3", "get", key="x")
    history.returns("r3", "c")
    verdict = check_linearizable(history)
    assert verdict.first_bad.process == "r2"
    assert "key 'x': r2: get() of 'x' -> 'b' [8, 9] has no place in any order" in verdict.explanation
    assert "which leaves 'c'" in verdict.explanation
    assert [each.process for each in verdict.facts["core"]] == ["w", "w", "w", "r2"]


def test_a_value_that_came_from_nowhere_is_said_to():
    history = [Operation("w", "put", "a", None, 0, 1), Operation("r", "get", None, "z", 2, 3)]
    assert "'z' was seen, but no operations can make it" in check_linearizable(history).explanation


def test_values_need_not_be_hashable():
    history = [
        Operation("w", "put", {"n": [1]}, None, 0, 1),
        Operation("r", "get", None, {"n": [1]}, 2, 3),
        Operation("c", "cas", ({"n": [1]}, {"n": [2]}), True, 4, 5),
        Operation("r", "get", None, {"n": [2]}, 6, 7),
    ]
    assert check_linearizable(history)
    history.append(Operation("r", "get", None, {"n": [1]}, 8, 9))
    assert not check_linearizable(history)


def test_an_unknown_model_or_function_is_refused():
    with pytest.raises(InvalidConfig, match="no model 'queue'"):
        check_linearizable([], "queue")
    with pytest.raises(InvalidConfig, match="'pop' is no function"):
        check_linearizable([Operation("c", "pop", None, None, 0, 1)])
    with pytest.raises(InvalidConfig, match="append takes a string"):
        check_linearizable([Operation("c", "append", 3, None, 0, 1)])


def test_an_empty_history_is_linearizable():
    assert check_linearizable([])
    assert check_linearizable([Operation("c", "get")])
