"""Who runs and how loaded they are: the load board and the failure detector, pure.

The driver uses `Gossip`; `Board`, `Members` and `formulas` are its parts, for tests and the simulator.
"""

from omcore.gossip.board import Board
from omcore.gossip.config import GossipConfig
from omcore.gossip.gossip import Gossip
from omcore.gossip.members import Members
from omcore.gossip.messages import Status
from omcore.gossip.outputs import (
    NodeBack,
    NodeJoined,
    NodeLeft,
    NodeLost,
    NodeSuspected,
    Output,
    Send,
)

__all__ = [
    "Board",
    "Gossip",
    "GossipConfig",
    "Members",
    "NodeBack",
    "NodeJoined",
    "NodeLeft",
    "NodeLost",
    "NodeSuspected",
    "Output",
    "Send",
    "Status",
]
