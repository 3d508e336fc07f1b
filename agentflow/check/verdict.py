"""What a judge says: kept, broken, or not known, and what shows it.

Law: `violated` names the first bad thing and carries what a reader needs to see that it is bad; `unknown`
is said instead of guessing, and is not `ok`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from agentflow.check.shrink import ddmin
from agentflow.errors import InvariantViolated, Refused


class Outcome(StrEnum):
    """The three things a judge can say."""

    OK = "ok"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Reproduction:
    """How to see a violation again, and whether it is still there under fewer faults.

    Parameters
    ----------
    seed : int
        The seed of the run.
    line : str
        The line of Python or shell that runs it again.
    faults : sequence
        The fault schedule of the run.
    fails : callable
        Runs the same seed under another schedule and says whether it still fails.
    """

    seed: int | None = None
    line: str = ""
    faults: Sequence[Any] = ()
    fails: Callable[[Sequence[Any]], bool] | None = None


@dataclass(frozen=True, repr=False)
class Verdict:
    """What one judge, or several together, say of a run.

    Parameters
    ----------
    promise : str
        The promise that was judged: `election safety`, `linearizable`, ...
    outcome : Outcome
        `ok`, `violated` or `unknown`.
    explanation : str
        In words, what is wrong or why it cannot be told.
    first_bad : Record or Operation or None
        The first thing that should not have happened.
    evidence : tuple
        The records or operations that show it, in order.
    facts : dict
        Numbers and values for programs: terms, nodes, steps taken, ...
    parts : tuple of Verdict
        The verdicts that this one sums up.
    reproduction : Reproduction or None
        How to run it again; a simulation fills it in.

    Examples
    --------
    >>> Verdict("election safety")
    <Verdict ok: election safety>
    >>> bool(Verdict("liveness", Outcome.UNKNOWN, "the trace ends too early"))
    False
    """

    promise: str
    outcome: Outcome = Outcome.OK
    explanation: str = ""
    first_bad: Any = None
    evidence: tuple[Any, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    parts: tuple[Verdict, ...] = ()
    reproduction: Reproduction | None = None

    @classmethod
    def combine(cls, verdicts: Iterable[Verdict], promise: str = "") -> Verdict:
        """Sum up several verdicts: one violation makes a violation, else one unknown an unknown.

        The sum speaks with the words of the worst part; of several violations, the earliest speaks.

        Parameters
        ----------
        verdicts : iterable of Verdict
            The parts.
        promise : str
            A name for the whole; the names of the parts if empty.

        Examples
        --------
        >>> bad = Verdict("log matching", Outcome.VIOLATED, "index 3 differs")
        >>> Verdict.combine([Verdict("election safety"), bad], "raft")
        <Verdict violated: raft: log matching: index 3 differs>
        """
        parts = tuple(verdicts)
        name = promise or ", ".join(dict.fromkeys(part.promise for part in parts)) or "nothing"
        worst = min(parts, key=_gravity, default=None)
        if worst is None or worst.outcome is Outcome.OK:
            return cls(name, parts=parts)
        words = f"{worst.promise}: {worst.explanation}" if name != worst.promise else worst.explanation
        return replace(worst, promise=name, explanation=words, parts=parts)

    def __bool__(self) -> bool:
        return self.outcome is Outcome.OK

    def __repr__(self) -> str:
        words = self.explanation.split("\n", 1)[0]
        if len(words) > 160:
            words = words[:157] + "..."
        return f"<Verdict {self.outcome}: {self.promise}{': ' if words else ''}{words}>"

    @property
    def is_violated(self) -> bool:
        """Whether the promise was broken."""
        return self.outcome is Outcome.VIOLATED

    def violations(self) -> list[Verdict]:
        """Return the violated parts, each by itself; itself if it has no parts.

        Examples
        --------
        >>> bad = Verdict("a", Outcome.VIOLATED, "no")
        >>> [part.promise for part in Verdict.combine([bad, Verdict("b")]).violations()]
        ['a']
        """
        if not self.parts:
            return [self] if self.is_violated else []
        return [bad for part in self.parts for bad in part.violations()]

    def raise_if_violated(self, *, seed: int | None = None, trace: Any = None, line: str = "") -> Verdict:
        """Raise if the promise was broken; return the verdict itself if not.

        Parameters
        ----------
        seed : int, optional
            The seed that makes the run happen again.
        trace : optional
            The whole trace; the evidence if not given.
        line : str
            What to run to see it again.

        Raises
        ------
        InvariantViolated
            With `seed`, `trace` and `verdict`.

        Examples
        --------
        >>> bad = Verdict("election safety", Outcome.VIOLATED, "two leaders in term 2")
        >>> bad.raise_if_violated(seed=7)
        Traceback (most recent call last):
        agentflow.errors.InvariantViolated: election safety: two leaders in term 2 (seed 7)
        """
        if not self.is_violated:
            return self
        known = self.reproduction or Reproduction()
        seed = known.seed if seed is None else seed
        line = line or known.line
        message = f"{self.promise}: {self.explanation}"
        if seed is not None:
            message += f" (seed {seed})"
        if line:
            message += f"\nreproduce with: {line}"
        raise InvariantViolated(
            message,
            seed=seed,
            trace=list(self.evidence) if trace is None else trace,
            verdict=self,
            promise=self.promise,
            first_bad=self.first_bad,
        )

    def reproducible(self, reproduction: Reproduction) -> Verdict:
        """Return the same verdict, knowing how to run it again."""
        return replace(self, reproduction=reproduction)

    def shrink(self, *, limit: int = 1000) -> list[Any]:
        """Find a smaller fault schedule under which the same seed still fails.

        Parameters
        ----------
        limit : int
            Runs allowed.

        Returns
        -------
        list
            The faults that are left; no single one of them can be left out, unless the limit came first.

        Raises
        ------
        Refused
            If the verdict does not know how its run was made, or there is nothing to shrink.
        """
        if not self.is_violated:
            raise Refused(f"{self.promise} is {self.outcome}; only a violation can be shrunk")
        known = self.reproduction
        if known is None or known.fails is None:
            raise Refused(
                f"the verdict on {self.promise} does not know how its run was made; "
                "get it from a simulation's check(), or call agentflow.check.ddmin yourself"
            )
        return ddmin(known.faults, known.fails, limit=limit)


def violated(
    promise: str,
    explanation: str,
    first_bad: Any = None,
    evidence: Iterable[Any] = (),
    **facts: Any,
) -> Verdict:
    """Make a violated verdict; the first bad thing closes the evidence if it is not in it.

    Examples
    --------
    >>> violated("commit monotone", "went from 4 to 2", node="master-1").facts
    {'node': 'master-1'}
    """
    shown = tuple(evidence)
    if first_bad is not None and not any(each is first_bad for each in shown):
        shown = (*shown, first_bad)
    return Verdict(promise, Outcome.VIOLATED, explanation, first_bad, shown, dict(facts))


def _gravity(verdict: Verdict) -> tuple[int, float]:
    """Order verdicts by how bad they are, then by when it happened."""
    rank = {Outcome.VIOLATED: 0, Outcome.UNKNOWN: 1, Outcome.OK: 2}[verdict.outcome]
    return rank, getattr(verdict.first_bad, "seq", 0)
