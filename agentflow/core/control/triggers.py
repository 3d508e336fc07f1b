"""When a task may run, given how its dependencies ended: the trigger rules.

A dependency ends in one of three ways that matter here: it succeeded, it failed (or was cancelled, or
never ran because something before it failed), or it was skipped by a rule.
"""

from __future__ import annotations

from enum import IntEnum


class Decision(IntEnum):
    """What a rule says of a task while its dependencies settle."""

    WAIT = 0
    RUN = 1
    SKIP = 2


def decide(rule: str, total: int, succeeded: int, failed: int, skipped: int) -> Decision:
    """Apply a trigger rule to the counts of settled dependencies.

    Parameters
    ----------
    rule : str
        One of `RULES`.
    total, succeeded, failed, skipped : int
        How many dependencies there are, and how many of them ended in which way.

    Examples
    --------
    >>> decide("all_success", total=2, succeeded=1, failed=0, skipped=0).name
    'WAIT'
    >>> decide("one_failed", total=2, succeeded=0, failed=1, skipped=0).name
    'RUN'
    """
    if not total:
        return Decision.RUN
    settled = succeeded + failed + skipped
    done = settled == total
    match rule:
        case "all_success":
            hopeless, satisfied = settled > succeeded, succeeded == total
        case "all_done":
            hopeless, satisfied = False, done
        case "all_failed":
            hopeless, satisfied = settled > failed, failed == total
        case "one_success":
            hopeless, satisfied = done and not succeeded, succeeded > 0
        case "one_failed":
            hopeless, satisfied = done and not failed, failed > 0
        case "none_failed":
            hopeless, satisfied = failed > 0, done and not failed
        case "always":
            hopeless, satisfied = False, True
        case _:
            raise AssertionError(f"no such trigger rule: {rule!r}")
    if satisfied:
        return Decision.RUN
    return Decision.SKIP if hopeless else Decision.WAIT


RULES = (
    "all_success",
    "all_done",
    "all_failed",
    "one_success",
    "one_failed",
    "none_failed",
    "always",
)
