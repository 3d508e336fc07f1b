"""The pure Raft machine: consensus without clocks, threads, sockets or files.

Read `machine` first, then `elections` and `replication`; `quorum` and `confchange` stand alone.
"""

from agentflow.core.machine import Persisted as Persisted
from agentflow.core.machine import PersistFailed as PersistFailed
from agentflow.core.machine import Stalled as Stalled
from agentflow.core.machine import Woken as Woken
from agentflow.core.raft.confchange import Change as Change
from agentflow.core.raft.confchange import ChangeKind as ChangeKind
from agentflow.core.raft.confchange import ConfigChange as ConfigChange
from agentflow.core.raft.confchange import Transition as Transition
from agentflow.core.raft.config import RaftConfig as RaftConfig
from agentflow.core.raft.events import CommitAdvanced as CommitAdvanced
from agentflow.core.raft.events import ConfigChanged as ConfigChanged
from agentflow.core.raft.events import EntriesApplied as EntriesApplied
from agentflow.core.raft.events import PeerStatus as PeerStatus
from agentflow.core.raft.events import RaftEvent as RaftEvent
from agentflow.core.raft.events import Role as Role
from agentflow.core.raft.events import RoleChanged as RoleChanged
from agentflow.core.raft.events import SnapshotInstalled as SnapshotInstalled
from agentflow.core.raft.events import VoteCounted as VoteCounted
from agentflow.core.raft.events import Voted as Voted
from agentflow.core.raft.inputs import Applied as Applied
from agentflow.core.raft.inputs import ApplyConfig as ApplyConfig
from agentflow.core.raft.inputs import Campaign as Campaign
from agentflow.core.raft.inputs import Compact as Compact
from agentflow.core.raft.inputs import ForgetLeader as ForgetLeader
from agentflow.core.raft.inputs import Propose as Propose
from agentflow.core.raft.inputs import ProposeConfig as ProposeConfig
from agentflow.core.raft.inputs import RaftInput as RaftInput
from agentflow.core.raft.inputs import Read as Read
from agentflow.core.raft.inputs import Receive as Receive
from agentflow.core.raft.inputs import SnapshotReported as SnapshotReported
from agentflow.core.raft.inputs import Transfer as Transfer
from agentflow.core.raft.inputs import Unreachable as Unreachable
from agentflow.core.raft.machine import RaftMachine as RaftMachine
from agentflow.core.raft.messages import ConfState as ConfState
from agentflow.core.raft.messages import Entry as Entry
from agentflow.core.raft.messages import EntryKind as EntryKind
from agentflow.core.raft.messages import HardState as HardState
from agentflow.core.raft.messages import Message as Message
from agentflow.core.raft.messages import MessageType as MessageType
from agentflow.core.raft.messages import Snapshot as Snapshot
from agentflow.core.raft.messages import Stored as Stored
from agentflow.core.raft.messages import Write as Write
from agentflow.core.raft.ready import ReadState as ReadState
from agentflow.core.raft.ready import Ready as Ready
from agentflow.core.raft.ready import SoftState as SoftState
from agentflow.core.raft.status import RaftStatus as RaftStatus
