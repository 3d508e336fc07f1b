"""The tables of a bus: its messages, its dead letters, its audit.

Law: they are read from the trace, so they agree with the diagrams and the judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from agentflow.cluster.agents.bus import Bus

__all__ = ["AgentFrames"]


class AgentFrames:
    """Tables of a bus as DataFrames, fresh at every call.

    Parameters
    ----------
    bus : Bus
        Whose.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def messages(self) -> pd.DataFrame:
        """Every message sent, and what became of it, as in `cluster.frames.messages()`."""
        from agentflow.cluster.frames import ClusterFrames

        source: Any = self._bus
        return ClusterFrames(source).messages()

    def audit(self) -> pd.DataFrame:
        """What happened to each message, stage by stage."""
        from agentflow.core.agents.audit import AuditTrail

        trail = AuditTrail()
        records = self._bus.read(lambda: list(self._bus.records()))
        return _frame([row for record in records for row in trail.feed(record)], self._bus.began)

    def dead_letters(self) -> pd.DataFrame:
        """The messages that reached nobody."""
        audit = self.audit()
        return audit[audit["event"] == "dead"].reset_index(drop=True)

    def __repr__(self) -> str:
        return "<frames: messages(), audit(), dead_letters()>"


def _frame(rows: list[Any], began: float) -> pd.DataFrame:
    from agentflow.cluster.agents.tables import AUDIT, as_row
    from agentflow.rows import Rows

    return Rows(AUDIT, map(as_row, rows), began).to_pandas()
