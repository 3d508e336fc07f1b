"""How failures travel: as plain data in an error message, and as an exception again where they arrive.

Law: what an exception says is definite or not stays so on the way. A refusal means no handler saw the
message; `RemoteError` means that one did and raised.
"""

from __future__ import annotations

from typing import Any

from agentflow import errors
from agentflow.core.agents.messages import AgentMessage, MessageType
from agentflow.ids import NodeId

__all__ = ["failure", "refusal", "verdict"]


def failure(kind: str, agent: NodeId, detail: Any = None) -> dict[str, Any]:
    """Return the content of an error message.

    Parameters
    ----------
    kind : str
        `failed`, `unhandled`, `expired` or `mailbox full`.
    agent : str
        Who says so.
    detail : plain data
        Of a handler that raised: its report; of a message that nobody handles: its type.
    """
    return {"error": kind, "agent": agent, "detail": detail}


def refusal(kind: str, agent: NodeId, request: str, detail: Any = None) -> errors.Refused:
    """Return the exception for a message that no handler saw.

    Examples
    --------
    >>> refusal("mailbox full", "b", "a/1")
    MailboxFull('the mailbox of b is full, so it turned a/1 away; ask again later')
    """
    facts = {"agent": agent, "request": request}
    if kind == "mailbox full":
        return errors.MailboxFull(
            f"the mailbox of {agent} is full, so it turned {request} away; ask again later", **facts
        )
    if kind == "expired":
        return errors.Expired(
            f"{request} outlived its ttl before {agent} could handle it; send it with a longer one", **facts
        )
    if kind == "unhandled":
        return errors.NoResponders(
            f"{agent} has no handler for {detail}; add one with @agent.on({str(detail)!r})", **facts
        )
    return errors.NoResponders(
        f"there is no agent {agent!r} to answer; start it, or ask another one", **facts
    )


def verdict(reply: AgentMessage) -> AgentMessage | errors.AgentflowError:
    """Return a reply, or the exception that it stands for."""
    if reply.msg_type is not MessageType.ERROR:
        return reply
    content = reply.content if isinstance(reply.content, dict) else {}
    kind, agent, request = content.get("error"), reply.from_, reply.in_reply_to or ""
    if kind in ("mailbox full", "expired", "unhandled"):
        return refusal(kind, agent, request, content.get("detail"))
    report = content.get("detail") if kind == "failed" else reply.content
    words = report.get("error") if isinstance(report, dict) and "error" in report else report
    return errors.RemoteError(
        f"the handler of {agent} failed on {request}: {words}", report=report, agent=agent, request=request
    )
