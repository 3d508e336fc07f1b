"""One line of the trace: who did what, when, and what caused it.

Everything that shows, judges or replays a run reads these and nothing else.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentflow.ids import NodeId


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A fact of a run.

    Parameters
    ----------
    seq : int
        Position in the trace, from 0.
    time : float
        Seconds since the run began.
    node : str
        Where it happened; empty for the network itself or the person at the keyboard.
    kind : str
        A short word. The host writes `start`, `crash`, `restart`, `stop`, `remove`, `pause`, `resume`;
        `send`, `deliver`, `drop` (the reason in `payload`), `unreachable`; `timer`, `persist`, `persisted`,
        `persist_failed`; `execute`, `abandon`, `finish`; `ask`, `answer` (the token in `type`); `fault`,
        `stall`, `stalled`, `error`. Machines add theirs through `Note` (`role`, `commit`, `apply`, ...).
    lamport : int
        Lamport clock of `node` at this event (Lamport 1978).
    cause : int
        `seq` of the event that led to this one, -1 for none: the happens-before edge.
    message : int
        Number of the message sent, delivered or dropped, -1 for none.
    source, destination : str
        Ends of the message; empty for none.
    type : str
        Type of the message, or a finer word for the kind.
    payload : Any
        The message, write or note itself. By reference: frozen values, never copied.
    """

    seq: int
    time: float
    node: NodeId
    kind: str
    lamport: int = 0
    cause: int = -1
    message: int = -1
    source: NodeId = ""
    destination: NodeId = ""
    type: str = ""
    payload: Any = None
