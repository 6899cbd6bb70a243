"""THE TABLE: every transition of the handoff, and why it is safe.

One job, one running copy, whatever fails.  Three roles; any two may be the same node, messages then go to oneself.

      client --MOVE--> HOME (journal on disk: owner, epoch)          source                       dest
                        | J1                                          |                            |
                        |--PREPARE---------------------------------------------------------------->| pod, room
                        |<-PREPARED(session)-------------------------------------------------------|
                        | J2                                          |                            |
                        |--FREEZE----------------------------------->| stop, dump                  |
                        |                                             |====images================>|
                        |                                             | record SEALED, ==SEAL====>| restore, stopped
                        |<-READY-------------------------------------------------------------------|
                        | J3: THE COMMIT (one fdatasync)              |                            |
                        |--GO--------------------------------------------------------------------->| record, resume
                        |<-RESUMED------------------------------------|<-RESUMED-------------------|
                        |<-RETIRED------------------------------------| kill, delete               |

  home    OPENING -> IDLE -> PREPARING -> FREEZING -J3-> COMMITTED -> IDLE        CLOSED: ended, lost, dropped
                       ^---------'           |    `-J3?-> UNSURE |
                       '---------------- UNDOING <------'--------'  VOIDED        DOUBT1, DOUBT2: a person
  source  RUNNING -> FROZEN -> SEALED -> gone                 back to RUNNING under m + 1: from FROZEN by itself,
                                                              from SEALED only on a word
  dest    gone -> INVITED -> RESTORING -> READY -> RUNNING    from READY back to VOID on RECLAIM, never further
                     `-> gone    `---------`-> VOID -> gone

Invariants
  I1  Never two copies run.  After the seal of m only source and dest could.  The source goes on only by ABORT(m) or
      by VOIDED(m, this session).  Home says ABORT(m) only while no GO(m) was ever sent, or after VOIDED(m); it says
      GO(m) only after J3 is durable, and a home that starts again never commits an open move: so GO and ABORT
      exclude each other over every crash.  The dest either writes RUNNING(m) or writes VOID(m): one record, one
      file, written before the act; so resume and VOIDED exclude each other.  Record, pod and images live on the
      node's tmpfs and die together; a new boot knows no session of the old one, and answers NOCOPY, not VOIDED.
  I3  A copy resumes under m or m + 1 only if nothing ran under m or later (except where a person decided).
  I6  What is stopped is destroyed only after somebody ran under m or m + 1, or the job is closed: the winner tells
      the loser, and only then the loser deletes.  DISCARDED, RETIRED, CLEAN let home forget (leftovers).
  I7  The journal's owner and epoch become the runner's; the end is durable before it is acknowledged.

Who may crash when
  Engines: any time.  Records say what was being done; it is done again.  INVITED voids, FROZEN goes on by itself,
  SEALED, READY and VOID wait and ask.  Home after J3 says GO again, before it ABORT (presumed abort).
  Nodes: a copy dies with its node.  The source after the seal: READY still commits.  The dest before READY: the
  source goes on.  Between the commit and RESUMED: DOUBT 1, since nobody can know whether the dest ran.  The source
  while the move is being undone: DOUBT 2, since it may have run on.  A person chooses; both choices are safe.
  Disks: J1, J2 fail: nothing happened.  J3 fails: nobody knows, so neither GO nor ABORT; RECLAIM asks the dest to
  void, and its VOIDED settles it whatever the disk holds.  A journal that is read is synced before it is believed.

Timers may repeat a message, give up what nobody voted for yet, or ask.  No timer resumes, voids or deletes a copy
after the seal.  What has no line here is ignored if it is news, and answered from the record if it is a question
(`answers.py`).  Left out here, with room in the fields: lazy moves, kill-then-restore, takeover (generation).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from omcore.handoff import dest, home_doubt, home_end, home_move, source
from omcore.handoff.home_state import HomeState as H
from omcore.handoff.home_state import Sync
from omcore.handoff.inputs import (
    AllOutputDelivered,
    Attested,
    CancelRequested,
    CheckOwner,
    CopyDied,
    Decision,
    DumpDone,
    DumpFailed,
    Facts,
    JobExited,
    MoveRequested,
    PodFailed,
    PodPrepared,
    RestoreDone,
    RestoreFailed,
    ResumeDone,
    ShipDone,
    ShipFailed,
    StreamBroken,
    StreamSealed,
    StreamStarted,
)  # fmt: skip
from omcore.handoff.machine import Timer
from omcore.handoff.messages import (
    Abort,
    Adopt,
    Ask,
    Clean,
    Discarded,
    Drop,
    Dropped,
    Ended,
    EndedAck,
    Freeze,
    Go,
    NoCopy,
    Prepare,
    Prepared,
    Probe,
    Ready,
    Reclaim,
    Resumed,
    Retired,
    Status,
    StatusAck,
    Superseded,
    Undone,
    Voided,
)  # fmt: skip
from omcore.handoff.records import CopyState as C

if TYPE_CHECKING:
    from omcore.handoff.home import Home
    from omcore.handoff.participant import Participant

# The second and third argument are narrowed by the key; a table of functions cannot say so to a type checker.
OnMessage = Callable[["Participant", Any, Any], None]
OnInput = Callable[["Participant", Any], None]
HomeMessage = Callable[["Home", Any, Any], None]

# ---- participant

SENDERS: dict[type, frozenset[str]] = {
    Prepare: frozenset({"anyone"}),  # checked against the record by `dest.prepare`
    Freeze: frozenset({"authority"}),
    Go: frozenset({"authority"}),
    Abort: frozenset({"authority"}),
    Probe: frozenset({"authority"}),
    StatusAck: frozenset({"authority"}),
    EndedAck: frozenset({"authority"}),
    Adopt: frozenset({"authority"}),
    Drop: frozenset({"authority"}),
    Resumed: frozenset({"authority", "peer"}),
    Undone: frozenset({"authority", "peer"}),
    Reclaim: frozenset({"authority", "peer"}),
    Voided: frozenset({"peer"}),
    Ask: frozenset({"peer"}),
    NoCopy: frozenset({"peer"}),  # of no use to a source: it is not VOIDED
}

PARTICIPANT_MESSAGES: dict[tuple[C, type], OnMessage] = {
    (C.RUNNING, Freeze): source.freeze,
    (C.RUNNING, Abort): source.abort_running,
    (C.FROZEN, Abort): source.undo_frozen,
    (C.FROZEN, Voided): source.undo_frozen,
    (C.SEALED, Abort): source.undo_frozen,
    (C.SEALED, Voided): source.undo_frozen,
    (C.SEALED, Resumed): source.retire,
    (C.SEALED, Prepare): source.invited_again,
    (C.SEALED, StatusAck): source.wait_on,
    (C.SEALED, Drop): source.drop_sealed,
    (C.ENDED, EndedAck): source.acknowledged,
    (C.GONE, Drop): source.dropped_already,
    **{(state, Prepare): dest.prepare for state in (C.GONE, C.INVITED, C.READY, C.VOID)},
    (C.INVITED, Reclaim): dest.reclaimed_early,
    (C.RESTORING, Reclaim): dest.reclaimed,
    (C.READY, Reclaim): dest.reclaimed,
    (C.READY, Go): dest.go,
    (C.VOID, Go): dest.voided_again,
    (C.VOID, Reclaim): dest.voided_again,
    **{(state, Probe): dest.probed for state in (C.RESTORING, C.READY, C.VOID)},
    **{(state, Undone): dest.undone for state in (C.INVITED, C.RESTORING, C.READY, C.VOID)},
    **{(state, Drop): dest.dropped for state in (C.INVITED, C.RESTORING, C.READY, C.VOID)},
    (C.READY, Adopt): dest.adopt,
    (C.VOID, Adopt): dest.adopt,
}

PARTICIPANT: dict[tuple[C, type], OnInput] = {
    (C.FROZEN, DumpDone): source.dumped,
    (C.FROZEN, DumpFailed): source.failed,
    (C.FROZEN, ShipDone): source.shipped,
    (C.FROZEN, ShipFailed): source.failed,
    (C.FROZEN, JobExited): source.exited_frozen,
    (C.FROZEN, CopyDied): source.exited_frozen,
    (C.SEALED, JobExited): source.copy_died,
    (C.SEALED, CopyDied): source.copy_died,
    (C.RUNNING, RestoreDone): source.rebuilt,
    (C.RUNNING, RestoreFailed): source.rebuild_failed,
    (C.RUNNING, ResumeDone): source.resumed,
    (C.RUNNING, JobExited): source.exited,
    (C.RUNNING, CopyDied): source.exited,
    (C.INVITED, PodPrepared): dest.pod_prepared,
    (C.INVITED, PodFailed): dest.invitation_failed,
    (C.INVITED, StreamStarted): dest.stream_started,
    (C.INVITED, StreamSealed): dest.sealed,
    (C.INVITED, StreamBroken): dest.invitation_failed,
    (C.RESTORING, RestoreDone): dest.restored,
    (C.RESTORING, RestoreFailed): dest.restore_failed,
    (C.READY, CopyDied): dest.ready_died,
    (C.READY, JobExited): dest.ready_died,
}
PARTICIPANT_INPUTS = frozenset(kind for _, kind in PARTICIPANT)

PARTICIPANT_TIMERS: dict[tuple[C, Timer], Callable[[Participant], None]] = {
    (C.FROZEN, Timer.MAX_FREEZE): source.undo_late,
    (C.SEALED, Timer.MAX_FREEZE): source.reclaim,  # asks; never resumes
    (C.SEALED, Timer.SILENT): source.reclaim,
    (C.INVITED, Timer.INVITE): dest.invite_expired,
}

RESTART: dict[C, Callable[[Participant, Facts], None]] = {
    C.GONE: source.restart_quiet,
    C.ENDED: source.restart_quiet,
    C.RUNNING: source.restart_running,
    C.FROZEN: source.restart_frozen,
    C.SEALED: source.restart_sealed,
    C.INVITED: dest.restart_invited,
    C.RESTORING: dest.restart_restoring,
    C.READY: dest.restart_restoring,
    C.VOID: dest.restart_void,
}

# ---- home

HOME_SENDERS: dict[type, str] = {
    Prepared: "dest",
    Ready: "dest",
    Voided: "dest",
    Resumed: "dest",
    Discarded: "dest",
    Undone: "source",
    Status: "source",
    Retired: "source",
    NoCopy: "either",
    Dropped: "either",
}
WITHOUT_SESSION = frozenset({Discarded})

HOME_ANY: dict[type, HomeMessage] = {
    Ended: home_end.ended,
    Superseded: home_end.superseded,
    Retired: home_end.confirmed,
    Discarded: home_end.confirmed,
    Clean: home_end.confirmed,
}

HOME: dict[tuple[H, type], HomeMessage] = {
    (H.IDLE, Status): home_end.owner_answers,
    (H.IDLE, NoCopy): home_end.owner_gone,
    (H.PREPARING, Prepared): home_move.prepared,
    (H.PREPARING, Voided): home_move.refused,
    (H.FREEZING, Ready): home_move.ready,
    (H.FREEZING, Voided): home_move.voided,
    (H.FREEZING, Undone): home_move.undone,
    (H.FREEZING, NoCopy): home_doubt.no_copy,
    (H.FREEZING, Discarded): home_doubt.dest_discarded,
    (H.FREEZING, Status): home_move.status,
    (H.UNSURE, Voided): home_move.voided,
    (H.UNSURE, Undone): home_move.undone,
    (H.UNSURE, Discarded): home_move.discarded,
    (H.UNSURE, NoCopy): home_move.unsure_no_copy,
    (H.UNSURE, Status): home_move.status,
    (H.COMMITTED, Resumed): home_move.resumed,
    (H.COMMITTED, Retired): home_move.retired,
    (H.COMMITTED, Voided): home_move.voided_late,
    (H.COMMITTED, Undone): home_move.undone,
    (H.COMMITTED, Discarded): home_move.discarded,
    (H.COMMITTED, NoCopy): home_doubt.no_copy_committed,
    (H.COMMITTED, Status): home_doubt.source_holds,
    (H.UNDOING, Undone): home_move.undone,
    (H.UNDOING, NoCopy): home_doubt.no_copy,
    (H.UNDOING, Status): home_move.status,
    (H.UNDOING, Retired): home_doubt.retired_undoing,
    (H.UNDOING, Ready): home_doubt.dest_holds,  # never a commit: it may be too late for it
    (H.UNDOING, Voided): home_doubt.dest_holds,
    (H.UNDOING, Discarded): home_doubt.dest_discarded,
    (H.DOUBT1, Undone): home_move.undone,
    (H.DOUBT1, Resumed): home_move.resumed,
    (H.DOUBT1, Retired): home_move.retired,
    (H.DOUBT1, Voided): home_move.voided_late,
    (H.DOUBT1, NoCopy): home_doubt.no_copy_doubt,
    (H.DOUBT1, Dropped): home_doubt.dropped,
    (H.DOUBT2, Undone): home_move.undone,
    (H.DOUBT2, Voided): home_doubt.dest_void,
    (H.DOUBT2, Discarded): home_doubt.dest_discarded,
    (H.DOUBT2, NoCopy): home_doubt.no_copy_doubt,
    (H.DOUBT2, Dropped): home_doubt.dropped,
    **{(H.CLOSED, kind): home_end.drop_stray for kind in (Ready, Voided, Status, Prepared)},
}

HOME_TIMERS: dict[tuple[H, Timer], Callable[[Home], None]] = {
    (H.OPENING, Timer.GRANT): home_move.open_again,
    (H.PREPARING, Timer.PREPARE): home_move.prepare_late,
    (H.FREEZING, Timer.READY): home_move.ready_late,
    (H.COMMITTED, Timer.GRANT): home_move.grant_late,
}

HOME_INPUTS: dict[type, Callable[[Home, Any], None]] = {
    MoveRequested: home_move.requested,
    CancelRequested: home_move.cancel_requested,
    AllOutputDelivered: home_end.delivered,
    CheckOwner: home_end.check_owner,
    Decision: home_doubt.decided,
    Attested: home_doubt.attested,
}

SYNCED: dict[Sync, Callable[[Home, bool], None]] = {
    Sync.OPEN: home_move.opened,
    Sync.BEGIN: home_move.begun,
    Sync.FREEZE: home_move.freeze_noted,
    Sync.COMMIT: home_move.committed,
    Sync.END: home_end.closed,
    Sync.RERUN: home_doubt.rerun,
    Sync.SALVAGE: home_doubt.salvage,
}
