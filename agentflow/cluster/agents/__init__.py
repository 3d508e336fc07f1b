"""Agents that talk: `AgentCommunication` on the kernel's bus, a cluster or a simulation.

- `agent`, `voice`, `call`: the handle, the half of it that speaks, and what one waits for.
- `bus`, `live`, `virtual`, `virtual_loop`: what carries agents, in real and in virtual time.
- `hosted`, `consumer`, `handlers`, `thread`: an agent's node, and how its handlers are run.
- `frames`, `tables`, `audit`, `facts`: what happened, as tables, in SQLite, and for the judges.
"""

from __future__ import annotations

from agentflow.cluster.agents.agent import AgentCommunication
from agentflow.core.agents import AgentMessage, AgentStats, DeadLetter, MessageType

__all__ = ["AgentCommunication", "AgentMessage", "AgentStats", "DeadLetter", "MessageType"]
