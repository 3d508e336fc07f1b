"""Where a node keeps what must survive it: in memory for the simulator, in SQLite for a cluster.

Law: what `save` returned from is there after a crash, whole; what it did not return from is there whole
or not at all.
"""

from agentflow.storage.base import Disk, check_stored
from agentflow.storage.faulty import DiskFaults, Fault, FaultyDisk
from agentflow.storage.memory import MemoryDisk
from agentflow.storage.sqlite import SqliteDisk

__all__ = ["Disk", "DiskFaults", "Fault", "FaultyDisk", "MemoryDisk", "SqliteDisk", "check_stored"]
