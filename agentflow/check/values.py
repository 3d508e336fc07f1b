"""Registers and keys made ready for the search: what was seen says what must have happened.

Plain search drowns in appends: ten at once make millions of different strings. But a state matters only as
far as somebody looks at it. So a state is named by the values seen that it still could become, and where
nobody will ever see what became of it, all such states are one, `DEAD`.

Law: two states with one name allow the same orders of the operations that remain. A configuration is given
up only when some value that was seen can no longer come about.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from typing import Any

from agentflow.check.history import Operation, brief
from agentflow.check.models import KeyValue
from agentflow.check.parse import Demands
from agentflow.check.times import Times, bits
from agentflow.errors import InvalidConfig

DEAD = -1
"""The state that nobody will see."""

LOOK, WRITE, APPEND, SWAP, MISS = range(5)
"""What an operation does: look, overwrite, append, swap (a cas that wrote), miss (a cas that did not)."""


class Seen:
    """The values that somebody saw, and the numbers of the states that lead to them.

    Strings are kept sorted if there are appends (`texts`): those that start with a state stand side by
    side, and its number is made of the first of them and of its length. Other values are `atoms`.
    """

    def __init__(self, values: Sequence[Any], *, appends: bool) -> None:
        self.texts = sorted({value for value in values if isinstance(value, str)}) if appends else []
        self.width = max(map(len, self.texts), default=0) + 1
        self.first_atom = len(self.texts) * self.width
        self.atoms: list[Any] = []
        self._numbers: dict[Hashable, int] = {}
        self._is_text = (str,) if appends else ()
        # With appends, "no value" is a beginning of every string, whether somebody sees it or not.
        for value in [None, *values] if appends else values:
            if not isinstance(value, self._is_text) and self._atom(value) < 0:
                self._add(value)

    def rank(self, value: Any) -> int:
        """Return the number of a value that was seen."""
        if isinstance(value, self._is_text):
            return bisect_left(self.texts, value)
        return len(self.texts) + self._atom(value)

    def exact(self, value: Any) -> int:
        """Return the state that is this value; `DEAD` if it leads to nothing that was seen."""
        if isinstance(value, self._is_text):
            return self.find(value, 0, 0, len(self.texts))
        atom = self._atom(value)
        return DEAD if atom < 0 else self.first_atom + atom

    def find(self, text: str, start: int, low: int, high: int) -> int:
        """Return the state `start` characters long, shared by values `low` to `high`, with `text` added."""
        texts, stop = self.texts, start + len(text)
        at = bisect_left(texts, text, low, high, key=lambda value: value[start:stop])
        if at == high or texts[at][start:stop] != text:
            return DEAD
        return at * self.width + stop

    def span(self, state: int) -> tuple[int, int]:
        """Return which texts start with this state."""
        low, length = divmod(state, self.width)
        start = self.texts[low][:length]
        high = bisect_left(self.texts, True, low, key=lambda value: not value.startswith(start))
        return low, high

    def is_void(self, state: int) -> bool:
        """Say whether the state is "no value", to which a text can be appended."""
        return state >= self.first_atom and self.atoms[state - self.first_atom] is None

    def _atom(self, value: Any) -> int:
        try:
            return self._numbers.get(value, -1)
        except TypeError:
            return next((at for at, atom in enumerate(self.atoms) if atom == value), -1)

    def _add(self, value: Any) -> None:
        with contextlib.suppress(TypeError):
            self._numbers[value] = len(self.atoms)
        self.atoms.append(value)


class ValueProblem:
    """The operations on one key, in the terms of `search.Problem`.

    Sets of operations are ints, an operation a bit.
    """

    def __init__(self, operations: Sequence[Operation], model: KeyValue) -> None:
        self._code = codes = [_code(each, model) for each in operations]
        self._looked_for = [_looked_for(each, code) for each, code in zip(operations, codes, strict=True)]
        self._input = [_input(each, code) for each, code in zip(operations, codes, strict=True)]
        self._lookers = [op for op, code in enumerate(codes) if code in (LOOK, SWAP, MISS)]
        self._appends = APPEND in codes
        self._seen = Seen([self._looked_for[op] for op in self._lookers], appends=self._appends)
        self._wanted = [DEAD] * len(operations)
        self._target = [
            self._seen.exact(value) if code in (WRITE, SWAP) else DEAD
            for code, value in zip(codes, self._input, strict=True)
        ]
        self._pending = sum(1 << op for op, each in enumerate(operations) if each.is_pending)
        self._span: dict[int, tuple[int, int]] = {}
        self._watch: dict[int, int] = {DEAD: 0}
        self._appended: dict[tuple[int, str], int] = {}
        self._times = Times(operations, [code in (WRITE, SWAP) for code in codes])
        self.initial: Any = self._seen.exact(model.initial)
        self._find_watchers()
        self._find_origins()
        self._weigh_appends(model.initial)
        self.looks: Sequence[bool] = [
            code in (LOOK, MISS) or (code == SWAP and not each.is_pending and _changes_nothing(each))
            for each, code in zip(operations, codes, strict=True)
        ]
        self.alike: Sequence[Hashable] = self._marks()
        self.doomed = self._obvious_doom()

    # --- the door -----------------------------------------------------------------------------------------

    def step(self, op: int, state: int) -> int | None:
        """Return the state after `op`, or None if its answer does not fit."""
        code = self._code[op]
        if code == APPEND:
            return self._append(state, self._input[op])
        if code == WRITE:
            return self._target[op]
        fits = state == self._wanted[op]
        if code == LOOK:
            return state if fits else None
        if code == MISS:
            return None if fits else state
        return self._target[op] if fits else None

    def settle(self, state: int, taken: int, frontier: float) -> int:
        """Forget a state that nobody who remains could see before it is overwritten."""
        watchers = self._watchers(state) & ~taken
        return state if watchers and watchers & self._times.near(taken, frontier) else DEAD

    def hopeless(self, op: int, before: int, after: int, taken: int, frontier: float) -> bool:
        """Say whether a value that was seen, and is not yet placed, can no longer come about."""
        blind = self._needy & ~taken & ~self._watchers(after)
        if blind and self._demands[op] & blind:
            return True
        lost = self._watchers(before) & blind
        if lost:
            # What lay beyond the horizon before `op` was out of reach already.
            lost &= self._times.near(taken & ~(1 << op), frontier)
        if self._target[op] != DEAD:
            low, served = self._serves(op)
            missed = served & ~(taken >> low)
            if missed:
                lost |= (missed << low) & self._needy & ~self._times.near(taken, frontier)
        while lost:
            seer = (lost & -lost).bit_length() - 1
            low, origins = self._origins(seer)
            if not origins & ~(taken >> low):
                return True
            lost &= lost - 1
        return False

    def is_idle(self, op: int, state: int, taken: int) -> bool:
        """Say whether `op` makes a value nobody sees, at a moment when nobody sees the value anyway."""
        if state != DEAD or self._misses & ~taken:
            return False
        code = self._code[op]
        if code == APPEND:
            return op in self._useless
        if code != WRITE:
            return False
        low, served = self._serves(op)
        return not served & ~(taken >> low)

    def urgency(self, op: int, taken: int) -> float:
        """Return the earliest end among the operation's own and theirs who could see what it writes."""
        ends = self._times.ends
        due = ends[op]
        if self._target[op] != DEAD:
            low, served = self._serves(op)
            for seer in bits(served & ~(taken >> low)):
                due = min(due, ends[low + seer])
        return due

    # --- states -------------------------------------------------------------------------------------------

    def _append(self, state: int, text: str) -> int:
        if state == DEAD:
            return DEAD
        after = self._appended.get((state, text))
        if after is None:
            seen = self._seen
            if state < seen.first_atom:
                low, high = self._span_of(state)
                after = seen.find(text, state % seen.width, low, high)
            else:
                after = seen.exact(text) if seen.is_void(state) else DEAD
            self._appended[state, text] = after
            if after not in self._watch:
                self._watch[after] = self._narrowed(state, after)
        return after

    def _span_of(self, state: int) -> tuple[int, int]:
        span = self._span.get(state)
        if span is None:
            span = self._span[state] = self._seen.span(state)
        return span

    def _watchers(self, state: int) -> int:
        """Return the operations that look for this state, or for one it can become by appending."""
        watchers = self._watch.get(state)
        if watchers is None:
            watchers = self._watch[state] = self._watching_any(self._reachable(state))
        return watchers

    def _narrowed(self, state: int, after: int) -> int:
        """Derive the watchers of a state from those of the one it was appended to.

        Along a chain of appends each value is left behind once, so the whole chain costs one pass.
        """
        inner = self._reachable(after)
        if state >= self._seen.first_atom:
            return self._watching_any(inner)
        low, high = self._span_of(state)
        if len(inner) < (high - low) // 2:
            return self._watching_any(inner)
        left = self._watching_any(range(low, inner.start)) | self._watching_any(range(inner.stop, high))
        return self._watchers(state) & ~left

    def _reachable(self, state: int) -> range:
        """Return the ranks of the values that this state is, or can become by appending."""
        seen = self._seen
        if state == DEAD:
            return range(0)
        if state < seen.first_atom:
            return range(*self._span_of(state))
        rank = len(seen.texts) + state - seen.first_atom
        # "No value" is the first atom when there are texts, so they stand side by side.
        return range(rank + 1) if self._appends and seen.is_void(state) else range(rank, rank + 1)

    def _watching_any(self, ranks: range) -> int:
        watchers = 0
        for rank in ranks:
            watchers |= self._watching[rank]
        return watchers

    # --- what depends on what -----------------------------------------------------------------------------

    def _find_watchers(self) -> None:
        """Find out who looks for which value."""
        seen = self._seen
        self._rank = [-1] * len(self._code)
        self._watching = [0] * (len(seen.texts) + len(seen.atoms))
        self._needy = self._misses = 0
        for op in self._lookers:
            value = self._looked_for[op]
            self._wanted[op] = seen.exact(value)
            self._rank[op] = rank = seen.rank(value)
            self._watching[rank] |= 1 << op
            if self._code[op] == MISS:
                self._misses |= 1 << op
            else:
                self._needy |= 1 << op & ~self._pending

    def _find_origins(self) -> None:
        """Find out which writes each value can begin with."""
        made: dict[int, int] = {}
        for op, state in enumerate(self._target):
            if state != DEAD:
                made[state] = made.get(state, 0) | 1 << op
        self._makers = [0] * len(self._watching)
        for state, ops in made.items():
            for rank in self._reachable(state):
                self._makers[rank] |= ops
        self._serving: dict[int, tuple[int, int]] = {}
        self._origin: dict[int, tuple[int, int]] = {}

    def _serves(self, op: int) -> tuple[int, int]:
        """Return who could see what `op` writes, as a set and the number of its first bit."""
        served = self._serving.get(op)
        if served is None:
            served = self._serving[op] = self._times.within_reach(op, self._watchers(self._target[op]))
        return served

    def _origins(self, seer: int) -> tuple[int, int]:
        """Return whose writes `seer` could have seen, in the same form."""
        origins = self._origin.get(seer)
        if origins is None:
            makers = self._makers[self._rank[seer]]
            origins = self._origin[seer] = self._times.reaching(seer, makers)
        return origins

    def _weigh_appends(self, initial: Any) -> None:
        """Find out which values cannot do without which append."""
        self._demands = [0] * len(self._code)
        self._useless: set[int] = set()
        self._unmade = 0
        if not self._appends:
            return
        pieces = {op: self._input[op] for op, code in enumerate(self._code) if code == APPEND}
        written = [self._input[op] for op, code in enumerate(self._code) if code in (WRITE, SWAP)]
        roots = {"" if value is None else value for value in [initial, *written]}
        roots = {root for root in roots if isinstance(root, str)}
        demands = Demands(self._seen.texts, self._watching, pieces, roots)
        for op, readers in demands.of_piece.items():
            self._demands[op] = readers
        self._useless = demands.useless
        self._unmade = demands.unmade

    def _marks(self) -> list[Hashable]:
        """Mark operations that do the same in every state that matters."""
        marks: list[Hashable] = []
        for op, code in enumerate(self._code):
            what = self._input[op] if code == APPEND else self._target[op]
            marks.append((code, self._wanted[op], what, bool(self._pending >> op & 1)))
        return marks

    def _obvious_doom(self) -> str:
        start = self._reachable(self.initial)
        for op in self._lookers:
            if self._needy >> op & 1:
                rank = self._rank[op]
                if not (self._makers[rank] or rank in start) or self._unmade >> op & 1:
                    return f"{brief(self._looked_for[op])} was seen, but no operations can make it"
        return ""


# --- operations ---------------------------------------------------------------------------------------


def _code(operation: Operation, model: KeyValue) -> int:
    function = operation.function
    if function in model.reads:
        return LOOK
    if function in model.writes:
        return WRITE
    if function == "append":
        if not isinstance(operation.argument, str):
            raise InvalidConfig(
                f"append takes a string, not {brief(operation.argument)}; use a model of your own",
                field="argument",
            )
        return APPEND
    if function == "cas":
        return SWAP if operation.is_pending or operation.result else MISS
    raise InvalidConfig(
        f"{function!r} is no function of {model!r}; it has get, put, append and cas", field="function"
    )


def _looked_for(operation: Operation, code: int) -> Any:
    if code == LOOK:
        return operation.result
    return operation.argument[0] if code in (SWAP, MISS) else None


def _input(operation: Operation, code: int) -> Any:
    if code in (WRITE, APPEND):
        return operation.argument
    return operation.argument[1] if code == SWAP else None


def _changes_nothing(operation: Operation) -> bool:
    return bool(operation.argument[0] == operation.argument[1])
