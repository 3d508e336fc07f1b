"""Whether one order of everything explains what every client saw.

Law: `ok` comes with such an order, `violated` with a part of the history that has none, and `unknown` when
the budget is used up first. No history makes it hang.

The objects of a history take turns: a search that would run for ever on one key does not keep another key
from being refuted in a moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from agentflow.check.explain import explained, search_for
from agentflow.check.history import History, Operation, brief
from agentflow.check.models import KeyValue, Model, Register
from agentflow.check.search import Search
from agentflow.check.verdict import Outcome, Verdict, violated
from agentflow.errors import InvalidConfig

PROMISE = "linearizable"
MODELS: dict[str, Callable[[], Model]] = {"register": Register, "kv": KeyValue, "key-value": KeyValue}


def check_linearizable(
    history: History | Iterable[Operation],
    model: Model | str = "kv",
    *,
    steps: int = 2_000_000,
    memory_mb: float = 400,
    enough: Callable[[], bool] | None = None,
    explain: bool = True,
) -> Verdict:
    """Judge whether a history is linearizable (Herlihy and Wing 1990).

    Parameters
    ----------
    history : History or iterable of Operation
        What clients saw; operations with different keys are about independent objects.
    model : Model or str
        What one object does: `"register"`, `"kv"`, or a model of your own (see `agentflow.check.models`).
    steps : int
        Operations the search may try, over all keys; a million is some ten seconds.
    memory_mb : float
        About how much the search may remember.
    enough : callable, optional
        Asked from time to time; when it says yes, what is not known yet stays unknown. A clock goes here.
    explain : bool
        Whether to look for a small explanation of a violation.

    Returns
    -------
    Verdict
        If `ok`, `facts["orders"]` has an order for each key. If `violated`, `first_bad` is the operation
        that no order can place, `evidence` it and those about it, `facts["core"]` a small part of the
        history that has no order, and `facts["order"]` an order of all before it.

    Examples
    --------
    >>> history = History()
    >>> history.invoke("c1", "write", 1); history.returns("c1")
    >>> history.invoke("c2", "read"); history.returns("c2", None)
    >>> verdict = check_linearizable(history, "register")
    >>> verdict.outcome, str(verdict.first_bad)
    (<Outcome.VIOLATED: 'violated'>, 'c2: read() -> None [2, 3]')
    """
    if isinstance(model, str):
        if model not in MODELS:
            raise InvalidConfig(
                f"there is no model {model!r}; take one of {', '.join(MODELS)}, or pass an object",
                field="model",
            )
        model = MODELS[model]()
    if not isinstance(history, History):
        history = History(history)
    turns = _Turns(history.partition(), model, steps, memory_mb * 1e6, enough)
    turns.run()
    if turns.bad is not None:
        key, part = turns.bad
        if explain:
            return explained(PROMISE, key, part, model, turns.steps)
        words = f"{'' if key is None else f'key {brief(key)}: '}no order explains what was seen"
        return violated(PROMISE, words, None, part, steps=turns.steps, key=key, core=tuple(part))
    facts: dict[str, Any] = {"steps": turns.steps, "orders": turns.orders}
    if turns.given_up or turns.waiting:
        keys = [key for key, _ in (*turns.given_up, *turns.waiting)]
        some = ", ".join(brief(key) for key in keys[:5]) + (", ..." if len(keys) > 5 else "")
        why = f"not decided within {turns.steps} steps" + (f" for keys {some}" if keys != [None] else "")
        return Verdict(PROMISE, Outcome.UNKNOWN, why, facts=facts | {"undecided": keys})
    return Verdict(PROMISE, facts=facts)


class _Turns:
    """One search a key, taking turns with ever longer portions."""

    first_portion = 1_000
    largest_portion = 64_000

    def __init__(
        self,
        parts: dict[Any, list[Operation]],
        model: Model,
        steps: int,
        memory_bytes: float,
        enough: Callable[[], bool] | None,
    ) -> None:
        self.waiting: list[tuple[Any, Search | list[Operation]]] = list(parts.items())
        self.given_up: list[tuple[Any, Search]] = []
        self.bad: tuple[Any, list[Operation]] | None = None
        self.orders: dict[Any, tuple[Operation, ...]] = {}
        self.steps = 0
        self._parts = parts
        self._model = model
        self._limit = steps
        self._memory = memory_bytes
        self._enough = enough or (lambda: False)

    def run(self) -> None:
        portion = self.first_portion
        while self.waiting and self.bad is None:
            queue, self.waiting = self.waiting, []
            for at, (key, search) in enumerate(queue):
                if self.steps >= self._limit or self._enough():
                    self.waiting += queue[at:]
                    return
                if not isinstance(search, Search):
                    search = search_for(search, self._model)
                self._turn(key, search, portion)
                if self.bad is not None:
                    return
            self._bound_memory()
            portion = min(2 * portion, self.largest_portion)

    def _turn(self, key: Any, search: Search, portion: int) -> None:
        before = search.steps
        search.advance(min(portion, self._limit - self.steps))
        self.steps += search.steps - before
        if search.verdict is None:
            self.waiting.append((key, search))
        elif search.verdict:
            self.orders[key] = tuple(search.operations[op] for op in search.order)
        else:
            self.bad = key, self._parts[key]

    def _bound_memory(self) -> None:
        """Give up the searches that remember most, so that the others can go on."""
        searches = [(key, each) for key, each in self.waiting if isinstance(each, Search)]
        searches.sort(key=lambda pair: pair[1].size_bytes)
        while searches and sum(each.size_bytes for _, each in searches) > self._memory:
            key, largest = searches.pop()
            largest.forget()
            self.given_up.append((key, largest))
            self.waiting = [pair for pair in self.waiting if pair[1] is not largest]
