"""Agents that talk: messages, subjects, mailboxes, and the machine of one agent.

Everything here is pure: `now` is an argument, and handlers are run by whoever hosts the machine.
"""

from __future__ import annotations

from agentflow.core.agents.directory import Directory
from agentflow.core.agents.letters import DeadLetter
from agentflow.core.agents.machine import AgentConfig, AgentMachine, AgentStats
from agentflow.core.agents.messages import AgentMessage, MessageType

__all__ = [
    "AgentConfig",
    "AgentMachine",
    "AgentMessage",
    "AgentStats",
    "DeadLetter",
    "Directory",
    "MessageType",
]
