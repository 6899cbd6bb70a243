"""Who may say what: one table, and what is not in it is said by nobody (SECURITY section 7).

The sender's role is the roster's word about its key, never a field of a message.  A question (`Call`) is judged by
what it asks.  Beside the roles stands how often a key may say it (section 12): `TALK` 50 a second, `ORDER` 10,
`LIST` 2; `JOB` is what two ends say about a job they share: it is bounded by their windows, and here only coarsely.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from omcore import messages
from omcore.handoff import messages as handoff
from omcore.trust.passes import Role


class Rate(Enum):
    """How often one key may say something: (burst, per second)."""

    TALK = (200.0, 50.0)
    ORDER = (20.0, 10.0)
    LIST = (4.0, 2.0)
    JOB = (4000.0, 2000.0)


ALL = frozenset((Role.LOOK, Role.WORK))
WORK = frozenset((Role.WORK,))


@dataclass(frozen=True, slots=True)
class Right:
    """Which roles may say it and how often; `order`: it begins something, so a roster that may be old forbids it."""

    roles: frozenset[Role]
    rate: Rate
    order: bool = False


class Gossip:
    """Stands in the table for the raw bytes of gossip; of a *look* member only a part counts (`gossip.modest`)."""


_TALK = Right(ALL, Rate.TALK)
_WORK = Right(WORK, Rate.TALK)
_ORDER = Right(WORK, Rate.ORDER, order=True)
_JOB = Right(WORK, Rate.JOB)

RIGHTS: dict[type, Right] = {
    Gossip: _TALK,
    # who we are, the roster, answers to our own questions
    messages.Hello: _TALK,
    messages.Answer: _TALK,
    messages.Nothing: _TALK,
    messages.AskRoster: _TALK,
    messages.RosterPage: _TALK,
    messages.TakeEntries: _TALK,  # they verify themselves
    messages.AskLeave: _TALK,  # about oneself
    messages.AskRekey: _TALK,
    messages.AskAdmit: Right(WORK, Rate.ORDER, order=True),
    messages.AskForget: Right(WORK, Rate.ORDER, order=True),
    messages.TakeKey: Right(WORK, Rate.ORDER, order=True),  # and from a keyholder only, see `omcore.signing`
    # figures, and where nodes are
    messages.AskInfos: _TALK,
    messages.Infos: _TALK,
    messages.AskBoard: _TALK,
    messages.BoardRows: _TALK,
    messages.AskJobs: _TALK,
    messages.Jobs: _TALK,
    messages.WatchProcesses: Right(WORK, Rate.LIST),
    messages.Processes: _TALK,  # taken only under a watch of our own
    # what asks or tells about a job
    messages.Examine: _WORK,
    messages.Examined: _WORK,
    messages.CheckNeeds: Right(WORK, Rate.TALK, order=True),
    messages.NeedsChecked: _WORK,
    # orders
    messages.Forward: _ORDER,
    messages.Forwarded: _WORK,
    messages.SignalHere: _ORDER,
    messages.Launch: _ORDER,
    messages.Launched: _WORK,
    # a job's streams and its handoff: between its home and who holds it
    messages.StreamOut: _JOB,
    messages.StreamAck: _JOB,
    messages.StreamIn: _JOB,
    messages.StreamSignal: _JOB,
    messages.StreamResize: _JOB,
    messages.StreamClose: _JOB,
    messages.Owner: _JOB,
    messages.Welcome: _JOB,
    messages.AskOwner: _JOB,
    messages.NotOwner: _JOB,
    messages.Progressed: _JOB,
    **{kind: _JOB for kind in handoff.KINDS.values()},
    handoff.Prepare: Right(WORK, Rate.JOB, order=True),
}


def right_of(kind: type | None) -> Right | None:
    """The right that a message of this kind needs; None: nobody has it."""
    return RIGHTS.get(kind) if kind is not None else None
