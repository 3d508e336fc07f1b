"""From "there is no order" to something a person can look at.

Law: the operations shown have no order by themselves, so neither has any history that contains them with
all its other changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from agentflow.check.history import FOREVER, Operation, brief
from agentflow.check.models import KeyValue, Model, reads_of
from agentflow.check.search import ModelProblem, Search, arrange
from agentflow.check.shrink import ddmin
from agentflow.check.values import ValueProblem
from agentflow.check.verdict import Verdict, violated

EFFORT = 400_000
"""Operations looked at, over all the smaller histories that are tried: some three seconds."""


def search_for(operations: Sequence[Operation], model: Model) -> Search:
    """Make the search for an order of one object's operations."""
    arranged = arrange(operations, model)
    if isinstance(model, KeyValue) and type(model).apply is KeyValue.apply:
        return Search(arranged, ValueProblem(arranged, model))
    return Search(arranged, ModelProblem(arranged, model))


def explained(promise: str, key: Any, part: Sequence[Operation], model: Model, steps: int) -> Verdict:
    """Find the first answer that no order explains, and as few others as still show it.

    Parameters
    ----------
    promise : str
        The name of the verdict.
    key : Any
        The object.
    part : sequence of Operation
        Its operations, which have no order.
    model : Model
        What the object does.
    steps : int
        What it took to find that out.
    """
    trials = _Trials(model, 20_000 + 2 * steps)
    ends = sorted({each.returned for each in part if not each.is_pending})
    low, high = -1, len(ends) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if trials.has_none(_cut(part, ends[middle])):
            high = middle
        else:
            low = middle
    prefix = _cut(part, ends[high])
    original = {id(cut): each for cut, each in zip(prefix, _begun(part, ends[high]), strict=True)}
    culprit = next(each for each in prefix if each.returned == ends[high])
    core = _few_reads(prefix, culprit, trials)
    shown = [original[id(each)] for each in core if _is_about(each, culprit, core, trials.reads)]
    where = "" if key is None else f"key {brief(key)}: "
    words = f"{where}{culprit} has no place in any order"
    facts: dict[str, Any] = {"steps": steps, "key": key, "core": tuple(core)}
    before = search_for(_cut(part, ends[high - 1]) if high else [], model)
    before.advance(trials.budget)
    if before.verdict:
        order = facts["order"] = tuple(before.operations[op] for op in before.order)
        state = facts["state"] = _final_state(order, model)
        words += f"; the {len(order)} operations before it have one, which leaves {brief(state)}"
    doomed = search_for(core, model).problem.doomed
    if doomed:
        words += f": {doomed}"
    return violated(promise, words, original[id(culprit)], shown, **facts)


class _Trials:
    """Smaller histories tried, within a limit."""

    def __init__(self, model: Model, budget: int) -> None:
        self.model = model
        self.budget = budget
        self.reads = reads_of(model)
        self._left = EFFORT

    def has_none(self, operations: Sequence[Operation]) -> bool:
        """Say whether these have no order; not knowing is no."""
        if self._left <= 0:
            return False
        search = search_for(operations, self.model)
        search.advance(min(self.budget, self._left))
        self._left -= 4 * len(operations) + search.steps
        return search.verdict is False


def _begun(operations: Iterable[Operation], instant: float) -> list[Operation]:
    return [each for each in operations if each.invoked <= instant]


def _cut(operations: Iterable[Operation], instant: float) -> list[Operation]:
    """Return the history as it stood at an instant: what had not returned by then had no answer."""
    replace = msgspec.structs.replace
    return [
        each if each.returned <= instant else replace(each, returned=FOREVER, result=None)
        for each in _begun(operations, instant)
    ]


def _few_reads(prefix: list[Operation], culprit: Operation, trials: _Trials) -> list[Operation]:
    """Leave out reads that the violation does without.

    Only reads can go: without a read there are more orders, without a change there may be fewer.
    """
    others = [each for each in prefix if each.function in trials.reads and each is not culprit]
    rest = [each for each in prefix if each.function not in trials.reads or each is culprit]

    def still_bad(kept: Sequence[Operation]) -> bool:
        return len(kept) == len(others) or trials.has_none([*rest, *kept])

    kept = {id(each) for each in (*rest, *ddmin(others, still_bad))}
    return [each for each in prefix if id(each) in kept]


def _is_about(each: Operation, culprit: Operation, core: list[Operation], reads: frozenset[str]) -> bool:
    """Say whether an operation belongs on the picture: a read that is needed, or a change beside one."""
    if each is culprit or each.function in reads:
        return not each.is_pending
    seers = (seer for seer in core if seer is culprit or (seer.function in reads and not seer.is_pending))
    return any(each.invoked <= seer.returned and seer.invoked <= each.returned for seer in seers)


def _final_state(order: Iterable[Operation], model: Model) -> Any:
    state: Any = model.initial
    for each in order:
        state = model.apply(state, each.function, each.argument)[1]
    return state
