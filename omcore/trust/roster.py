"""The roster: the set of signed passes and removals that every node of a cluster holds and passes on.

Merging is commutative, associative and idempotent, so any order of gossip gives the same roster.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from omcore.errors import NotTrusted, RemoteProtocolError, UsageError
from omcore.trust.files import read_private, replace_private
from omcore.trust.keys import ClusterKey, short_id
from omcore.trust.passes import ENTRY_BYTES, KEYHOLDER, Entry, Grant, Role, cluster_id, parse, sign, verify
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
    """Passes and removals of one cluster; every entry in it was verified."""

    def __init__(self, cluster: bytes, cluster_public: bytes) -> None:
        self.cluster = cluster
        self.cluster_public = cluster_public
        self._entries: dict[NodeId, Entry] = {}
        self._digest: bytes | None = None

    @classmethod
    def new(cls, cluster_public: bytes) -> Roster:
        """An empty roster of the cluster that begins with this key."""
        return cls(cluster_id(cluster_public), cluster_public)

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, node: NodeId) -> Entry | None:
        """What the roster says of `node`, pass or removal."""
        return self._entries.get(node)

    def members(self, now: float) -> tuple[Member, ...]:
        """The nodes admitted at wall-clock time `now` (seconds), by number."""
        holder: dict[int, Entry] = {}
        live = [entry for entry in self._entries.values() if _admits(entry, now)]
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
        return entry is not None and _admits(entry, now)

    def keyholders(self, now: float) -> tuple[NodeId, ...]:
        """Members that hold the cluster key."""
        return tuple(e.node for e in self._entries.values() if e.flags & KEYHOLDER and _admits(e, now))

    @property
    def epoch(self) -> int:
        """How often the cluster key was replaced."""
        return max((entry.epoch for entry in self._entries.values()), default=0)

    @property
    def removals(self) -> int:
        """Nodes that were removed for good."""
        return sum(entry.gone for entry in self._entries.values())

    def digest(self) -> bytes:
        """16 bytes, equal exactly when two rosters say the same."""
        if self._digest is None:
            state = hashlib.blake2b(self.cluster_public, digest_size=16, person=b"omview-roster")
            for raw in self._sorted():
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
            known = self._entries.get(entry.node)
            if (known is None or entry.raw != known.raw) and entry.beats(known) and entry.beats(newest.get(entry.node)):
                newest[entry.node] = entry
        changed = list(newest.values())
        if len(self._entries | newest) > MAX_ENTRIES:
            raise RemoteProtocolError(f"a roster of more than {MAX_ENTRIES} entries")
        verify(changed, self.cluster, self.cluster_public)
        self._take(changed)
        return tuple(changed)

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
        data = _MAGIC + self.cluster + self.cluster_public + self.export()
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
        if key.public != self.cluster_public:
            raise NotTrusted("the cluster key here is not this cluster's", "ask a keyholder")
        entry = sign(key, self.cluster, grant)
        self._take([entry])
        return entry

    def _take(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries[entry.node] = entry
        self._digest = None

    def _next_serial(self) -> int:
        return max((entry.serial for entry in self._entries.values()), default=0) + 1

    def _sorted(self) -> list[bytes]:
        return [self._entries[node].raw for node in sorted(self._entries)]


def _admits(entry: Entry, now: float) -> bool:
    return not entry.gone and (entry.expires == 0 or now < entry.expires)


def _file_digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32, person=b"omview-verified").digest()
