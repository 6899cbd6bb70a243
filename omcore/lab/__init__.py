"""A cluster of test hosts on one machine: namespaces with names, addresses and an engine each.

    lab.up("lab", 3, cpu=0.5)          # LabStatus; raises LabError with a hint
    lab.enter("lab", "node1", ["omview", "nodes"])   # runs it there, returns its exit code
    lab.down("lab")

Nothing is made in the machine's own network namespace, and nothing outlives the lab (see `keeper`).
"""

from omcore.lab.enter import enter
from omcore.lab.manage import down, status, up
from omcore.lab.record import DEFAULT_NAME, HostStatus, LabStatus, all_labs

__all__ = ["DEFAULT_NAME", "HostStatus", "LabStatus", "all_labs", "down", "enter", "status", "up"]
