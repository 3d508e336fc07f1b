"""What people see. Imported by `views` on the first display, and by nobody below."""

from agentflow.notebook import reprs

__all__ = ["reprs"]
