"""Copies of a run's world at some of its instants: they shorten the way back.

Law: a run has the same past with them and without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agentflow.cluster.simulating.world import World

MOST_COPIES = 24
"""Copies of earlier worlds kept at most."""

LEAST_STEPS = 2_000
"""Steps between two copies at least: fewer are made again in a moment."""


class Mark(NamedTuple):
    """A place in a run, to the event: what `Simulation.mark` gives and `rewind` takes.

    Parameters
    ----------
    time : float
        The instant.
    step : int
        How many things had happened.
    acts : int
        How much had been done by hand.
    """

    time: float
    step: int
    acts: int

    def covers(self, world: World) -> bool:
        """Whether a world of the same run is not after this place."""
        return world.driver.now <= self.time and world.driver.steps <= self.step and world.acted <= self.acts


class Copies:
    """Copies of one run's world at some of its instants, the earliest first."""

    def __init__(self) -> None:
        self.worlds: list[World] = []
        self.possible = True

    def before(self, mark: Mark) -> World | None:
        """Return the latest one that is not after an instant."""
        fitting = [each for each in self.worlds if mark.covers(each)]
        return fitting[-1] if fitting else None

    def keep(self, world: World) -> None:
        """Keep a copy of a world, and no more of them than is reasonable."""
        if not self.possible or any(each.driver.steps == world.driver.steps for each in self.worlds):
            return
        try:
            twin = world.copy()
        except Exception:
            # A node of the user's holds what cannot be copied: a lock, a file, a generator.
            self.possible = False
            return
        self.worlds.append(twin)
        self.worlds.sort(key=lambda each: each.driver.steps)
        if len(self.worlds) > MOST_COPIES:
            del self.worlds[1::2]

    def until(self, mark: Mark) -> Copies:
        """Return those that are not after an instant."""
        kept = Copies()
        kept.possible = self.possible
        kept.worlds = [each for each in self.worlds if mark.covers(each)]
        return kept
