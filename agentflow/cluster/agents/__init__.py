"""Agents that talk: `AgentCommunication` on the kernel's bus, a cluster or a simulation."""

from __future__ import annotations

from agentflow.cluster.agents.agent import AgentCommunication
from agentflow.core.agents import AgentMessage, AgentStats, DeadLetter, MessageType

__all__ = ["AgentCommunication", "AgentMessage", "AgentStats", "DeadLetter", "MessageType"]
