"""The agent's machine as it sits in a host: it says when a life is over.

Law: a life that is over stays so; the next start makes a new machine.
"""

from __future__ import annotations

from collections.abc import Callable

from agentflow.core.agents.directory import Directory
from agentflow.core.agents.machine import AgentConfig, AgentMachine
from agentflow.ids import NodeId

__all__ = ["HostedAgent"]


class HostedAgent(AgentMachine):
    """An agent's machine that tells its handle when the host takes it down.

    Parameters
    ----------
    agent_id, directory, config, life
        As for `AgentMachine`.
    fell : callable
        Called with the machine when its life is over.
    """

    def __init__(
        self,
        agent_id: NodeId,
        directory: Directory,
        config: AgentConfig,
        life: int,
        *,
        fell: Callable[[HostedAgent], None],
    ) -> None:
        super().__init__(agent_id, directory, config, life)
        self.over = False
        self._fell = fell

    def on_crash(self) -> None:
        """End the life; called by the host."""
        self.over = True
        self._fell(self)
