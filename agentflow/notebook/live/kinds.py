"""Which scene shows what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentflow.notebook.live import feed
from agentflow.notebook.live.cluster import ClusterScene
from agentflow.notebook.live.player import PlayerScene
from agentflow.notebook.live.run import RunScene
from agentflow.notebook.live.scene import Scene
from agentflow.notebook.live.small import PARTS

if TYPE_CHECKING:
    from agentflow.notebook.live.widget import LiveView

KINDS: Final[dict[str, type[Scene]]] = {
    "cluster": ClusterScene,
    "run": RunScene,
    "player": PlayerScene,
    **PARTS,
}


def live(kind: str, subject: Any) -> LiveView:
    """Give the live view of an object."""
    return feed.live(KINDS[kind], subject)


def displayed(kind: str, subject: Any) -> bool:
    """Show an object in the notebook, live if somebody looks on; False where there is no notebook."""
    return feed.displayed(KINDS[kind], subject)
