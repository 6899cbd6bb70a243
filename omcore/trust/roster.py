"""The roster: the set of signed passes and removals that every node of a cluster holds and passes on.

Merging is commutative, associative and idempotent, so any order of gossip gives the same roster.  With each turn of the
cluster key all entries are signed anew; until that is over (`open`) the entries of the epoch before count as well.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from omcore.errors import NotTrusted, RemoteProtocolError, UsageError
from omcore.trust.files import read_private, replace_private
from omcore.trust.keys import ClusterKey, short_id
from omcore.trust.passes import ENTRY_BYTES, KEYHOLDER, Entry, Grant, Role, cluster_id, parse, sign, verify
from omcore.trust.rotation import Rotation
from omcore.trust.turns import Turn, sign_turn
from omcore.types import NodeId

ROSTER = "roster"
VERIFIED = "roster.ok"  # digest of the roster file last verified; trusted because the directory is 0700 and ours
_MAGIC = b"OMVROST1"
_HEADER_BYTES = 8 + 16 + 32
MAX_ENTRIES = 20_000
PAGE_ENTRIES = 1_000  # 164 KiB: one message


class Member(NamedTuple):
    """A node that is admitted now. `number` 0: another node has the same one, a keyholder will give a new one."""

    id: NodeId
    number: int
    role: Role


class Roster:
    """Passes and removals of one cluster; every entry in it was verified.  `first_public`: the key it began with."""

    def __init__(self, cluster: bytes, first_public: bytes) -> None:
        self.cluster = cluster
        self.rotation = Rotation(cluster, first_public)
        self._entries: dict[NodeId, Entry] = {}
        self._digest: bytes | None = None
        self.max_serial = 0  # the newest entry's
        self._changing = threading.Lock()

    @classmethod
    def new(cls, cluster_public: bytes) -> Roster:
        """An empty roster of the cluster that begins with this key."""
        return cls(cluster_id(cluster_public), cluster_public)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first_public(self) -> bytes:
        """The key that the cluster is named by."""
        return self.rotation.publics[0]

    @property
    def cluster_public(self) -> bytes:
        """The key that signs now."""
        return self.rotation.publics[-1]

    def entry(self, node: NodeId) -> Entry | None:
        """What the roster says of `node`, pass or removal."""
        return self._entries.get(node)

    def members(self, now: float) -> tuple[Member, ...]:
        """The nodes admitted at wall-clock time `now` (seconds), by number."""
        holder: dict[int, Entry] = {}
        live = [entry for entry in self._entries.values() if self._admits(entry, now)]
        for entry in live:
            other = holder.get(entry.number)
            if other is None or (entry.serial, entry.node) < (other.serial, other.node):
                holder[entry.number] = entry
        return tuple(
            sorted(
                (Member(e.node, e.number if holder[e.number] is e else 0, e.role) for e in live),
                key=lambda member: (member.number or MAX_ENTRIES**2, member.id),
            )
        )

    def is_member(self, node: NodeId, now: float) -> bool:
        """Whether `node` is admitted at wall-clock time `now`."""
        entry = self._entries.get(node)
        return entry is not None and self._admits(entry, now)

    def keyholders(self, now: float) -> tuple[NodeId, ...]:
        """Members that hold the cluster key."""
        return tuple(e.node for e in self._entries.values() if e.flags & KEYHOLDER and self._admits(e, now))

    @property
    def epoch(self) -> int:
        """How often the cluster key was replaced."""
        return self.rotation.epoch

    @property
    def open(self) -> bool:
        """Whether entries of the epoch before count as well."""
        return self.rotation.open

    @property
    def removals(self) -> int:
        """Nodes that were removed for good."""
        return sum(entry.gone for entry in self._entries.values())

    def digest(self) -> bytes:
        """16 bytes, equal exactly when two rosters say the same."""
        if self._digest is None:
            state = hashlib.blake2b(self.rotation.export(), digest_size=16, person=b"omview-roster")
            for raw in self._sorted():  # what is left of the epoch before is no part of it: it is about to go
                if parse(raw).epoch == self.epoch:
                    state.update(raw)
            self._digest = state.digest()
        return self._digest

    def export(self) -> bytes:
        """All entries, 168 bytes each, for a file or another node's stdin."""
        return b"".join(self._sorted())

    def pages(self) -> Iterator[bytes]:
        """All entries in pieces that fit a message; each can be merged alone."""
        entries = self._sorted()
        for start in range(0, len(entries), PAGE_ENTRIES):
            yield b"".join(entries[start : start + PAGE_ENTRIES])

    def merge(self, data: bytes) -> tuple[Entry, ...]:
        """Take in entries from anywhere, all or none; returns those that changed something.

        Entries of an epoch that is over are passed over, and while two turns are rivals all are.
        Only entries that would change something are verified. Raises RemoteProtocolError for bad bytes, NotTrusted
        for an entry the cluster key did not sign or that is of another cluster; then nothing has changed.
        """
        if len(data) % ENTRY_BYTES or len(data) > MAX_ENTRIES * ENTRY_BYTES:
            raise RemoteProtocolError(f"roster entries of {len(data)} bytes in all")
        newest: dict[NodeId, Entry] = {}
        for start in range(0, len(data), ENTRY_BYTES):
            entry = parse(data[start : start + ENTRY_BYTES])
            if entry.cluster != self.cluster:
                raise NotTrusted("a roster entry of another cluster")
            if self.rotation.rival is not None or entry.epoch < self.rotation.oldest:
                continue
            known = self._entries.get(entry.node)
            if (known is None or entry.raw != known.raw) and entry.beats(known) and entry.beats(newest.get(entry.node)):
                newest[entry.node] = entry
        changed = list(newest.values())
        if len(self._entries | newest) > MAX_ENTRIES:
            raise RemoteProtocolError(f"a roster of more than {MAX_ENTRIES} entries")
        for epoch in {entry.epoch for entry in changed}:
            if epoch > self.epoch:
                raise NotTrusted("a roster entry under a cluster key that this node has not heard of")
            verify([e for e in changed if e.epoch == epoch], self.cluster, self.rotation.publics[epoch])
        self._take(changed)
        return tuple(changed)

    # -- turns of the cluster key

    def merge_turns(self, data: bytes, now: float) -> bool:
        """Take in turns from anywhere; True where one was news. Two different ones to one epoch freeze the roster.

        Raises RemoteProtocolError or NotTrusted for what is no turn of this cluster's key.
        """
        with self._changing:  # the same turn from two at once is one turn, no rival of itself
            news = self.rotation.merge(data, self.export(), now)
            if news:
                self._digest = None
        return news

    def rotate(self, old: ClusterKey, new: ClusterKey, me: NodeId, now: float) -> Turn:
        """Hand over to a new key, and sign every entry anew with it; `me` is the one keyholder at first."""
        self._check_key(old)
        turn = sign_turn(old, new, self.cluster, self.epoch + 1, now)
        self.merge_turns(turn.raw, now)
        serial = self.max_serial
        grants = [
            replace(self._grant(entry, now, flags=KEYHOLDER if entry.node == me else 0), serial=serial + number)
            for number, entry in enumerate(self._entries.values(), 1)
        ]
        self._take([sign(new, self.cluster, grant) for grant in grants])
        return turn

    def close_turn(self) -> bool:
        """The key before is over: what it alone signed does not count any more. True where that was news."""
        with self._changing:
            if not self.rotation.open:
                return False
            self.rotation.open = False
            self._entries = {node: entry for node, entry in self._entries.items() if entry.epoch == self.epoch}
            self._digest = None
            return True

    def accept_turn(self, word: str, now: float) -> Turn:
        """A person decides between two rival turns by the new key's fingerprint. Raises UsageError.

        If it is not the one that was followed so far, the entries are again those from before it.
        """
        turn, before = self.rotation.accept(word, now)
        if before is not None:
            self._entries = {}
            self._take([parse(before[at : at + ENTRY_BYTES]) for at in range(0, len(before), ENTRY_BYTES)])
        self._digest = None
        return turn

    def rekey(self, key: ClusterKey, old: NodeId, new: NodeId, now: float) -> tuple[Entry, Entry]:
        """A member has a new key: remove the old one, admit the new one under the same number.

        Raises UsageError where the old one is no member, or the new one was here before.
        """
        entry = self._entries.get(old)
        if entry is None or entry.gone or new in self._entries:
            raise UsageError("that key cannot be replaced by that one")
        gone = self.forget(key, old, old, now)
        return gone, self._issue(
            key,
            Grant(
                new, entry.number, entry.role, self._next_serial(), int(now), entry.inviter,
                flags=entry.flags, epoch=self.epoch, expires=entry.expires,
            ),
        )  # fmt: skip

    def admit(
        self,
        key: ClusterKey,
        node: NodeId,
        inviter: NodeId,
        now: float,
        role: Role = Role.WORK,
        *,
        keyholder: bool = False,
    ) -> Entry:
        """Sign a pass for `node` and take it in; a node that was here before gets its old number back if it is free."""
        old = self._entries.get(node)
        taken = {entry.number for entry in self._entries.values() if entry.node != node}
        number = old.number if old and old.number not in taken else max(taken, default=0) + 1
        return self._issue(
            key,
            Grant(
                node,
                number,
                role,
                self._next_serial(),
                int(now),
                short_id(bytes.fromhex(inviter)),
                flags=KEYHOLDER if keyholder else 0,
                epoch=self.epoch,
            ),
        )

    def forget(self, key: ClusterKey, node: NodeId, by: NodeId, now: float) -> Entry:
        """Sign the removal of `node` and take it in. Raises UsageError for a node that is not here."""
        old = self._entries.get(node)
        if old is None or old.gone:
            raise UsageError("that node is not in the roster")
        return self._issue(
            key,
            Grant(
                node,
                old.number,
                old.role,
                self._next_serial(),
                int(now),
                short_id(bytes.fromhex(by)),
                gone=True,
                epoch=self.epoch,
            ),
        )

    def reissue(self, key: ClusterKey, node: NodeId, now: float, *, flags: int) -> Entry:
        """Sign the pass of a member anew with other flags. Raises UsageError for a node that is not here."""
        old = self._entries.get(node)
        if old is None or old.gone:
            raise UsageError("that node is not in the roster")
        return self._issue(key, self._grant(old, now, flags=flags))

    def _grant(self, old: Entry, now: float, *, flags: int | None = None, number: int | None = None) -> Grant:
        return Grant(
            old.node,
            old.number if number is None else number,
            old.role,
            self._next_serial(),
            int(now),
            old.inviter,
            gone=old.gone,
            flags=old.flags if flags is None else flags,
            epoch=self.epoch,
            expires=old.expires,
        )

    def renumber(self, key: ClusterKey, now: float) -> tuple[Entry, ...]:
        """Give every node whose number is taken by an older one a new number (a keyholder's duty)."""
        issued = []
        for member in self.members(now):
            if member.number == 0:
                old = self._entries[member.id]
                number = max(entry.number for entry in self._entries.values()) + 1
                issued.append(self._issue(key, self._grant(old, now, number=number)))
        return tuple(issued)

    def save(self, directory: Path) -> None:
        """Write the roster to its file, whole or not at all, and note that it is verified."""
        self.rotation.save(directory)
        data = _MAGIC + self.cluster + self.first_public + self.export()
        replace_private(directory / ROSTER, data)
        replace_private(directory / VERIFIED, _file_digest(data))

    @classmethod
    def load(cls, directory: Path) -> Roster:
        """Read the roster; signatures are checked only if the file is not the one verified last.

        Raises FileNotFoundError before the first run, NotTrusted if the file is damaged or not ours.
        """
        path = directory / ROSTER
        data = read_private(path, _HEADER_BYTES + MAX_ENTRIES * ENTRY_BYTES)
        if len(data) < _HEADER_BYTES or data[:8] != _MAGIC or (len(data) - _HEADER_BYTES) % ENTRY_BYTES:
            raise NotTrusted(f"{path} is damaged or cut short", "restore it from a backup, or join again")
        roster = cls(data[8:24], data[24:_HEADER_BYTES])
        body = data[_HEADER_BYTES:]
        roster.rotation.load(directory)
        try:
            known = read_private(directory / VERIFIED, 32)
        except FileNotFoundError:
            known = b""
        if hmac.compare_digest(known, _file_digest(data)):
            roster._take([parse(body[start : start + ENTRY_BYTES]) for start in range(0, len(body), ENTRY_BYTES)])
            return roster
        try:
            roster.merge(body)
        except (NotTrusted, RemoteProtocolError) as error:
            raise NotTrusted(f"{path} was altered: {error.text}", "restore it from a backup, or join again") from error
        replace_private(directory / VERIFIED, _file_digest(data))
        return roster

    def _issue(self, key: ClusterKey, grant: Grant) -> Entry:
        self._check_key(key)
        entry = sign(key, self.cluster, grant)
        self._take([entry])
        return entry

    def _check_key(self, key: ClusterKey) -> None:
        if key.public != self.cluster_public:
            raise NotTrusted("the cluster key here is not this cluster's", "ask a keyholder")
        if self.rotation.rival is not None:
            raise UsageError(
                "Two new cluster keys were announced, so the membership is frozen.",
                "Find out which is right (omview key show), then on every node: omview key accept FINGERPRINT",
            )

    def _take(self, entries: Iterable[Entry]) -> None:
        with self._changing:  # pages are merged in threads while others read
            found = dict(self._entries)
            for entry in entries:
                if entry.beats(found.get(entry.node)):
                    found[entry.node] = entry
                self.max_serial = max(self.max_serial, entry.serial)
            self._entries = found
            self._digest = None

    def _next_serial(self) -> int:
        return self.max_serial + 1

    def _admits(self, entry: Entry, now: float) -> bool:
        return not entry.gone and entry.epoch >= self.rotation.oldest and (entry.expires == 0 or now < entry.expires)

    def _sorted(self) -> list[bytes]:
        return [self._entries[node].raw for node in sorted(self._entries)]


def _file_digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32, person=b"omview-verified").digest()
