"""Two runs side by side: the first event in which they differ, and the proof that a seed makes one run.

Law: two records are the same if their canonical bytes are: objects that are equal by themselves, or that msgspec
writes alike.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from agentflow.check.verdict import Outcome, Verdict, violated
from agentflow.core.record import Record
from agentflow.runtime.trace import canonical
from agentflow.views import Viewable

if TYPE_CHECKING:
    from agentflow.cluster.simulating.past import Past

PROMISE = "deterministic"
CONTEXT = 5
"""Records shown before the first that differs."""


class Difference(Viewable):
    """Where two runs part.

    Attributes
    ----------
    seq : int or None
        Number of the first event that differs; None if there is none, and then the object is false.
    left, right : Record or None
        That event in the one and in the other run; None where the run has ended before it.
    before : list of Record
        The last events they have in common.
    """

    def __init__(
        self, seq: int | None, left: Record | None, right: Record | None, before: Sequence[Record]
    ) -> None:
        self.seq = seq
        self.left = left
        self.right = right
        self.before = list(before)

    def __bool__(self) -> bool:
        return self.seq is not None

    @property
    def explanation(self) -> str:
        """In words."""
        if self.seq is None:
            return "the runs do not differ"
        if self.left is None or self.right is None:
            longer, record = ("right", self.right) if self.left is None else ("left", self.left)
            assert record is not None
            return f"event {self.seq} is in the {longer} run only: {said(record)}"
        fields = [
            name
            for name in Record.__struct_fields__
            if canonical(getattr(self.left, name)) != canonical(getattr(self.right, name))
        ]
        return (
            f"event {self.seq} differs in {', '.join(fields)}: {said(self.left)}, against {said(self.right)}"
        )

    def __repr__(self) -> str:
        return f"<Difference: {self.explanation}>" if self else "<no difference>"


def said(record: Record) -> str:
    """Say a record in a few words."""
    words = [f"t={record.time:.6g}", record.node or "-", record.kind, record.type]
    if record.source:
        words.append(f"{record.source} to {record.destination}")
    if record.payload is not None:
        text = repr(record.payload)
        words.append(text if len(text) < 90 else text[:87] + "...")
    return " ".join(word for word in words if word)


def same(left: Record, right: Record) -> bool:
    """Whether two records tell the same."""
    try:
        if left == right:
            return True
    except Exception:
        pass
    return canonical(left) == canonical(right)


def compare(left: Sequence[Record], right: Sequence[Record], *, prefix: bool = False) -> Difference | None:
    """Return the first difference; with `prefix`, the left run may go on after the right one's end."""
    for place, (a, b) in enumerate(zip(left, right, strict=False)):
        if a is not b and not same(a, b):
            return Difference(a.seq, a, b, left[max(0, place - CONTEXT) : place])
    shorter = min(len(left), len(right))
    if len(left) == len(right) or (prefix and len(left) > len(right)):
        return None
    rest = (left if len(left) > shorter else right)[shorter]
    a_, b_ = (rest, None) if len(left) > shorter else (None, rest)
    return Difference(rest.seq, a_, b_, left[max(0, shorter - CONTEXT) : shorter])


def diff(left: Any, right: Any) -> Difference:
    """Find the first event in which two simulations differ.

    Parameters
    ----------
    left, right : Simulation
        The runs; or anything with a `trace`, or lists of records.

    Examples
    --------
    >>> from agentflow import Simulation
    >>> a, b = (Simulation(masters=3, seed=seed).run_for(10) for seed in (1, 2))
    >>> bool(diff(a, a)), diff(a, b).left.kind
    (False, 'timer')
    """
    sides = [list(getattr(side, "trace", side)) for side in (left, right)]
    return compare(*sides) or Difference(None, None, None, ())


# --- the proof --------------------------------------------------------------------------------------------


def hashes(records: Iterable[Record]) -> bytes:
    """Return eight bytes a record."""
    return b"".join(hashlib.blake2b(canonical(record), digest_size=8).digest() for record in records)


def prove(sim: Past, *, process: bool) -> Verdict:
    """Make a run again, here and elsewhere, and compare; see `Simulation.prove_deterministic`."""
    records = list(sim.trace)
    facts: dict[str, Any] = {"digest": sim.trace.digest(), "events": len(records), "processes": 1}
    again = sim.recipe().play()
    found = compare(records, list(again.trace))
    if found is not None:
        shown = [each for each in (*found.before, found.left, found.right) if each is not None]
        return violated(
            PROMISE, f"made again, {found.explanation}", found.right or found.left, shown, seq=found.seq
        )
    if not process:
        return Verdict(PROMISE, facts=facts)
    try:
        import cloudpickle

        sent = cloudpickle.dumps((sim.recipe(), hashes(records)))
    except Exception as error:
        why = f"the run holds what cannot be sent to another process: {type(error).__name__}: {error}"
        return Verdict(PROMISE, Outcome.UNKNOWN, why, facts=facts)
    answer = _elsewhere(sent)
    if answer is None:
        facts["processes"] = 2
        return Verdict(PROMISE, facts=facts)
    seq, words = answer
    record = records[seq] if seq < len(records) else None
    text = f"in another process event {seq} differs: {said(record) if record else 'nothing'}, against {words}"
    return violated(PROMISE, text, record, records[max(0, seq - CONTEXT) : seq], seq=seq)


def _elsewhere(sent: bytes) -> tuple[int, str] | None:
    """Make a run in a fresh interpreter with another hash seed; return where it differs, and how."""
    here = os.environ.get("PYTHONHASHSEED", "random")
    other = "1" if here != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": other}
    head = f"import sys; sys.path[:] = {sys.path!r}; "
    code = head + "from agentflow.cluster.simulating.compare import answer; answer()"
    done = subprocess.run(
        [sys.executable, "-c", code], input=sent, capture_output=True, env=environment, check=False
    )
    if done.returncode:
        return 0, f"the other process failed: {done.stderr.decode(errors='replace').strip()[-500:]}"
    found: tuple[int, str] | None = pickle.loads(done.stdout)
    return found


def answer() -> None:
    """Make the run that standard input tells of, compare it, and say on standard output what differs."""
    recipe, wanted = pickle.loads(sys.stdin.buffer.read())
    out = sys.stdout.buffer
    # What the user's functions print must not get among the answer.
    sys.stdout = sys.stderr
    records = list(recipe.play().trace)
    got = hashes(records)
    found = None
    if got != wanted:
        count = min(len(got), len(wanted)) // 8
        seq = next(
            (at for at in range(count) if got[8 * at : 8 * at + 8] != wanted[8 * at : 8 * at + 8]), count
        )
        found = (seq, said(records[seq]) if seq < len(records) else "the end of the run")
    out.write(pickle.dumps(found))
