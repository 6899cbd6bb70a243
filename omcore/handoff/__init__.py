"""The handoff protocol as pure state machines: `Home` (the authority) and `Participant` (source, dest, runner).

`table.py` holds the theory and all transitions.  Inputs, outputs, messages and records are plain frozen data.
"""

from omcore.handoff.home import Home
from omcore.handoff.home_state import HomeState
from omcore.handoff.machine import Timer, Timing
from omcore.handoff.participant import Participant

__all__ = ["Home", "HomeState", "Participant", "Timer", "Timing"]
