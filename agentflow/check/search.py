"""The search for an order: depth first over what could have taken effect next.

Wing and Gong (Testing and Verifying Concurrent Objects, 1993) with Lowe's memory of configurations already
seen (Testing for Linearizability, 2017). A configuration is which operations have taken effect, as the bits
of an int, and the state they led to.

Law: every shortcut taken here keeps at least one order alive if there is one. The shortcuts:

- An operation that only looks takes effect as soon as it may and its answer fits: moving it there from any
  later place changes nothing for the others.
- Of operations that are alike, the one that must return first goes first: they can be swapped.
- An operation without an end is never needed unless it changes the state, and a configuration that spent
  more of them than another with the same rest and state is not tried.
- What a problem knows of its own (`settle`, `hopeless`, `is_idle`; see `Problem`).

Nothing here recurses, and work is done in portions, so that many searches can take turns.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from agentflow.check.history import FOREVER, Operation
from agentflow.check.models import ANY, Model, reads_of

ENTRY_BYTES = 290
"""What one remembered configuration costs, apart from the digits of its set of operations."""


class Problem(Protocol):
    """One object's operations, made ready for the search; operations are numbered as given.

    `taken` is the set of operations that have taken effect, as bits; everything that returned before the
    instant `frontier` is in it.
    """

    initial: Any
    looks: Sequence[bool]
    """Which operations never change the state."""
    alike: Sequence[Hashable]
    """Operations with equal marks can be swapped."""
    doomed: str
    """Why no order can exist, if that is plain from the outset; else empty."""

    def step(self, op: int, state: Any) -> Any:
        """Return the state after `op`, or None if it cannot take effect in this state."""
        ...

    def settle(self, state: Any, taken: int, frontier: float) -> Any:
        """Return one name for all states that the remaining operations cannot tell apart."""
        ...

    def hopeless(self, op: int, before: Any, after: Any, taken: int, frontier: float) -> bool:
        """Say whether no order of the rest can exist once `op` has led from `before` to `after`."""
        ...

    def is_idle(self, op: int, state: Any, taken: int) -> bool:
        """Say whether `op` changes nothing that matters, in this state or in any later one."""
        ...

    def urgency(self, op: int, taken: int) -> float:
        """Return by when `op` should take effect: its own end, or that of someone who waits for it."""
        ...


class ModelProblem:
    """Any model's operations: no shortcuts beyond those the model declares in `reads`."""

    def __init__(self, operations: Sequence[Operation], model: Model) -> None:
        reads = reads_of(model)
        self.initial: Any = (model.initial,)
        self.looks: Sequence[bool] = [each.function in reads for each in operations]
        self.alike: Sequence[Hashable] = [_mark(each, number) for number, each in enumerate(operations)]
        self.doomed = ""
        self._operations = operations
        self._apply = model.apply

    def step(self, op: int, state: Any) -> Any:
        """Ask the model. States travel in a tuple of one, so that None can be a state."""
        operation = self._operations[op]
        answer, after = self._apply(state[0], operation.function, operation.argument)
        if operation.returned == FOREVER:
            # Without an answer that anybody saw, an operation that changes nothing need not take effect.
            return None if after == state[0] else (after,)
        if answer is ANY or answer == operation.result:
            return state if after is state[0] else (after,)
        return None

    def settle(self, state: Any, taken: int, frontier: float) -> Any:
        """Nothing is known about a user's states."""
        return state

    def hopeless(self, op: int, before: Any, after: Any, taken: int, frontier: float) -> bool:
        """Nothing is known about what lies ahead."""
        return False

    def is_idle(self, op: int, state: Any, taken: int) -> bool:
        """Every change may matter."""
        return False

    def urgency(self, op: int, taken: int) -> float:
        """Return the operation's own end."""
        return self._operations[op].returned


def _mark(operation: Operation, number: int) -> Hashable:
    ended = operation.returned != FOREVER
    mark = (operation.function, operation.argument, operation.result if ended else None, ended)
    try:
        hash(mark)
    except TypeError:
        return number
    return mark


class Search:
    """The search for one object's order.

    Parameters
    ----------
    operations : sequence of Operation
        Those without an end first; then by invocation. See `arrange`.
    problem : Problem
        The same operations, made ready.

    Attributes
    ----------
    verdict : bool or None
        Whether an order exists; None until that is known.
    order : list of int
        The order found, or how far the search stands.
    steps : int
        Operations tried.
    size_bytes : int
        About how much is remembered.
    """

    def __init__(self, operations: Sequence[Operation], problem: Problem) -> None:
        self.operations = operations
        self.problem = problem
        self.verdict: bool | None = False if problem.doomed else None
        self.order: list[int] = []
        self.steps = 0
        self.size_bytes = 0
        self._taken = 0
        self._optional = sum(each.is_pending for each in operations)
        self._optional_bits = (1 << self._optional) - 1
        self._alike = problem.alike
        self._link(operations)
        self._seen: dict[Any, list[int]] = {}
        # A frame is the state, the operations still to try there, how many were taken to get there, and
        # the frontier.
        self._frames: list[tuple[Any, list[int], int, float]] = []
        self._frontier = self._when[0]
        self._next: Any = problem.initial

    def _link(self, operations: Sequence[Operation]) -> None:
        """String all invocations and returns on one doubly linked list, in order of time."""
        events = []
        for op, each in enumerate(operations):
            events.append((each.invoked, 0, op))
            if not each.is_pending:
                events.append((each.returned, 1, op))
        events.sort()
        count = len(events)
        # Event 0 is the head and `count + 1` the end, which stops a walk as a return does.
        self._what = [-1, *(-1 if is_return else op for _, is_return, op in events), -1]
        self._when = [events[0][0] if events else 0.0, *(at for at, _, _ in events), FOREVER]
        self._after = [*range(1, count + 2), count + 1]
        self._before = [0, *range(count + 1)]
        self._end = count + 1
        self._call = [0] * len(operations)
        self._return = [0] * len(operations)
        self._rank = [count + 1] * len(operations)
        for at, (_, is_return, op) in enumerate(events, 1):
            if is_return:
                self._return[op] = self._rank[op] = at
            else:
                self._call[op] = at

    def forget(self) -> None:
        """Give back the memory; the search cannot go on."""
        self._seen.clear()
        self._frames.clear()
        self.size_bytes = 0

    # --- taking and giving back ---------------------------------------------------------------------------

    def _take(self, op: int) -> None:
        before, after = self._before, self._after
        at = self._return[op]
        if at:
            behind, ahead = before[at], after[at]
            after[behind], before[ahead] = ahead, behind
        at = self._call[op]
        behind, ahead = before[at], after[at]
        after[behind], before[ahead] = ahead, behind
        self._taken |= 1 << op
        self.order.append(op)

    def _give_back(self, length: int) -> None:
        before, after, order = self._before, self._after, self.order
        while len(order) > length:
            op = order.pop()
            at = self._call[op]
            after[before[at]] = before[after[at]] = at
            at = self._return[op]
            if at:
                after[before[at]] = before[after[at]] = at
            self._taken ^= 1 << op

    # --- searching ----------------------------------------------------------------------------------------

    def advance(self, steps: int) -> None:
        """Try up to about `steps` more operations; `verdict` says whether that was enough."""
        if self.verdict is not None:
            return
        limit = self.steps + steps
        frames, order, problem = self._frames, self.order, self.problem
        step, hopeless = problem.step, problem.hopeless
        while self.steps < limit:
            if self._next is not None:
                state, candidates = self._open(self._next)
                self._next = None
                if candidates is None:
                    self.verdict = True
                    return
                frames.append((state, candidates, len(order), self._frontier))
            state, candidates, base, self._frontier = frames[-1]
            while candidates:
                op = candidates.pop()
                self.steps += 1
                after = step(op, state)
                if after is None:
                    continue
                self._take(op)
                if hopeless(op, state, after, self._taken, self._frontier):
                    self._give_back(base)
                    continue
                self._next = after
                break
            else:
                frames.pop()
                if not frames:
                    self._give_back(0)
                    self.verdict = False
                    self._seen.clear()
                    return
                self._give_back(frames[-1][2])

    def _open(self, state: Any) -> tuple[Any, list[int] | None]:
        """Do what needs no choice; return the state, and the choices, last one best (None: all done)."""
        problem = self.problem
        looks, step, is_idle = problem.looks, problem.step, problem.is_idle
        what, after = self._what, self._after
        optional = self._optional
        while True:
            choices: list[int] = []
            length = len(self.order)
            settled = problem.settle(state, self._taken, self._frontier)
            at = after[0]
            while (op := what[at]) >= 0:
                if looks[op]:
                    if step(op, settled) is not None:
                        self._take(op)
                elif is_idle(op, settled, self._taken):
                    if op >= optional:
                        self._take(op)
                else:
                    choices.append(op)
                at = after[at]
            if at == self._end:
                return settled, None
            state = settled
            self._frontier = frontier = self._when[at]
            if len(self.order) == length or problem.settle(state, self._taken, frontier) == state:
                break
        if not choices or self._known(state):
            return state, []
        return state, self._ranked(choices)

    def _ranked(self, choices: list[int]) -> list[int]:
        """Sort by urgency, the most urgent last, and keep one of those that are alike."""
        if len(choices) == 1:
            return choices
        rank, alike = self._rank, self._alike
        choices.sort(key=rank.__getitem__, reverse=True)
        choices = list({alike[op]: op for op in choices}.values())
        urgency, taken = self.problem.urgency, self._taken
        return sorted(choices, key=lambda op: (urgency(op, taken), rank[op]), reverse=True)

    def _known(self, state: Any) -> bool:
        """Say whether this configuration, or one that had spent less, was tried; remember it."""
        taken, optional = self._taken, self._optional
        required = taken >> optional
        # Everything before the first operation not taken is taken: only what follows tells sets apart.
        low = (~required & (required + 1)).bit_length() - 1
        key = (low, required >> low, state)
        spent = taken & self._optional_bits
        before = self._seen.get(key)
        if before is None:
            self._seen[key] = [spent]
        elif any(each & spent == each for each in before):
            return True
        else:
            before[:] = [each for each in before if each & spent != spent]
            before.append(spent)
        self.size_bytes += ENTRY_BYTES + (taken.bit_length() - low) // 7
        return False


def arrange(operations: Sequence[Operation], model: Model) -> list[Operation]:
    """Put operations in the order `Search` wants, without those that can say nothing.

    A read without an answer is one of them.
    """
    reads = reads_of(model)
    told = [each for each in operations if not (each.is_pending and each.function in reads)]
    return sorted(told, key=lambda each: (not each.is_pending, each.invoked, each.returned))
