"""Event loops and the people who meet them: one bridge, and one switch that is theirs to turn."""

from __future__ import annotations

from agentflow.runtime.loops import run_sync

__all__ = ["allow_nested_loops", "run_sync"]


def allow_nested_loops() -> None:
    """Let your own code call `asyncio.run` in a cell, where a loop runs already.

    agentflow never needs this and never does it behind your back: it cannot be undone, and it replaces
    asyncio's fast tasks by slower ones in the whole process.

    Examples
    --------
    `af.allow_nested_loops()` and then `asyncio.run(main())` in a notebook cell.
    """
    import nest_asyncio2

    nest_asyncio2.apply()
