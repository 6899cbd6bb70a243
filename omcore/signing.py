"""Whatever needs the cluster key: done here if this node holds it, else asked of a node that does (SECURITY section 6).

A keyholder signs for its own owner, and for other members a few times an hour; what it signed goes to all living
members at once, and verifies itself there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from omcore import messages, requests
from omcore.errors import NotTrusted, OmError, PeerUnreachable, RemoteProtocolError, UsageError
from omcore.trust import renewal
from omcore.trust.backup import Backup, check_pair, seal, unseal
from omcore.trust.files import replace_private
from omcore.trust.guard import Verdict
from omcore.trust.keys import ClusterKey, fingerprint, short_id, store_next_cluster_key
from omcore.trust.passes import ENTRY_BYTES, KEYHOLDER, Role
from omcore.trust.roster import PAGE_ENTRIES
from omcore.types import Keyholder, KeysView, NodeId, NodeState

if TYPE_CHECKING:
    from omcore.node import Node

log = logging.getLogger(__name__)

ASK_S = 5.0
SPREAD = 64
"""Nodes that hear news directly; the others hear it from these."""
FAREWELL_S = 0.3
"""How long a node that leaves may take to hear that it was granted, before it is cut off."""
PER_HOUR = 5
BACKUP_MARK = "backup"
"""File that says which cluster key was exported here."""


class Signing:
    """The node's dealings with the cluster key."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._asked: dict[NodeId, deque[float]] = {}

    # -- who holds the key

    def keyholders(self) -> list[NodeId]:
        """Other members that hold the cluster key, the living first."""
        node = self._node
        holders = [key for key in node.state.roster.keyholders(time.time()) if key != node.me]
        return sorted(holders, key=lambda key: not self.is_up(key))

    def is_up(self, key: NodeId) -> bool:
        """Whether a node is heard of."""
        node = self._node
        number = node.cluster.number(key)
        return key == node.me or bool(number) and node.gossip.state(number, node.now()) is not NodeState.LOST

    def view(self) -> KeysView:
        """What `omview key show` shows."""
        node = self._node
        roster = node.state.roster
        now = time.time()
        holders = roster.keyholders(now)
        return KeysView(
            node=fingerprint(node.state.key.public),
            cluster=fingerprint(roster.cluster_public),
            epoch=roster.epoch,
            keyholders=tuple(
                Keyholder(node.cluster.name(key), fingerprint(bytes.fromhex(key)), self.is_up(key), key == node.me)
                for key in sorted(holders, key=node.cluster.number)
            ),
            members=len(roster.members(now)),
            removals=roster.removals,
            invitations=len(node.state.invites.live(now)),
            backup=self._has_backup(),
            roster_age_s=node.confirming.age_s,
            turns=tuple(turn.fingerprint for turn in roster.rotation.choice),
        )

    def refuse_without_keyholder(self) -> None:
        """Raise where nobody could sign now, with a sentence that says who is missing."""
        if self._node.state.cluster_key() is None and not any(self.is_up(key) for key in self.keyholders()):
            raise self._nobody_signs()

    def _nobody_signs(self) -> OmError:
        names = [self._node.cluster.name(key) for key in self.keyholders()]
        if not names:
            return UsageError(
                "No node of this cluster holds the cluster key.", "Who has a backup of it: omview key import FILE"
            )
        if len(names) == 1:
            return PeerUnreachable(f"{names[0]} holds the cluster key and is down.", "Try again when it is up.")
        return PeerUnreachable(f"{', '.join(names)} hold the cluster key and are down.", "Try again when one is up.")

    async def ask_keyholder(self, question: object, but: NodeId | None = None) -> messages.RosterPage:
        """What a keyholder, `but` this one, signed for us."""
        for key in self.keyholders():
            if key == but:
                continue
            try:
                name = self._node.cluster.name(key)
                return await self._node.calls.ask(key, question, messages.RosterPage, ASK_S, name)
            except PeerUnreachable:
                continue
        raise self._nobody_signs()

    # -- news of the roster

    async def take(self, page: messages.RosterPage | messages.TakeEntries) -> bool:
        """Take in turns and entries from anywhere; True where there was news."""
        node = self._node
        turned, changed = await asyncio.to_thread(self._merge, page.turns, page.entries)
        if turned:
            node.turning.heard()
        if turned or changed:
            await self.changed()
            await self._renumber()
        return turned or changed

    def _merge(self, turns: bytes, entries: bytes) -> tuple[bool, bool]:
        roster = self._node.state.roster
        return bool(turns) and roster.merge_turns(turns, time.time()), bool(roster.merge(entries))

    async def _renumber(self) -> None:
        """Two keyholders may have given one number twice: the first of those that live gives another one."""
        node = self._node
        roster = node.state.roster
        if all(member.number for member in roster.members(time.time())) or roster.rotation.rival is not None:
            return
        key = node.state.cluster_key()
        if key is not None and node.me == min([node.me, *(k for k in self.keyholders() if self.is_up(k))]):
            await self.signed(b"".join(entry.raw for entry in roster.renumber(key, time.time())))

    async def changed(self) -> None:
        """The roster has changed: keep it, and act on it."""
        await self._node.membership.save_roster()
        await self._node.membership.changed()

    async def signed(self, entries: bytes) -> None:
        """We have signed something: keep it, and tell the living at once."""
        await self.changed()
        for key in self._living():
            self._node.spawn(self._tell(key, entries))

    async def tell_all(self, entries: bytes) -> None:
        """Tell the living, and wait until they have heard, or some seconds."""
        await asyncio.gather(*(self._tell(key, entries) for key in self._living()))

    def _living(self) -> list[NodeId]:
        return [key for key in self._node.cluster.infos if key != self._node.me and self.is_up(key)][:SPREAD]

    async def _tell(self, key: NodeId, entries: bytes) -> None:
        if len(entries) > PAGE_ENTRIES * ENTRY_BYTES:
            return  # too much for one message: it hears from our greeting that there is news, and asks for it
        news = messages.TakeEntries(entries, self._node.state.roster.rotation.export())
        try:
            await self._node.calls.ask(key, news, messages.Nothing, ASK_S)
        except OmError as error:
            log.info("news not told to=%s error=%s", self._node.cluster.name(key), error)

    # -- what the owner asks

    async def ask(self, message: Any) -> str:
        """A face's wish about keys; answers in words."""
        match message:
            case requests.Leave():
                return await self._leave(message.anyway)
            case requests.ImportKey():
                return await self._import(message.data, message.passphrase)
            case requests.ShareKey():
                return await self._share(message.node)
            case requests.RotateKey():
                turning = self._node.turning
                return await (turning.rotate_node() if message.node else turning.rotate())
            case requests.AcceptKey():
                return await self._node.turning.accept(message.fingerprint)
            case _:
                raise RemoteProtocolError("that is no request about keys")

    async def admit(self, node: NodeId, role: Role) -> None:
        """Have a keyholder sign a pass for a node that used an invitation of ours."""
        await self.take(await self.ask_keyholder(messages.AskAdmit(node, int(role))))

    async def forget(self, key: NodeId, with_invited: bool) -> list[str]:
        """Remove a node for good; returns the names of all that went."""
        node = self._node
        before = {member.id: node.cluster.name(member.id) for member in node.state.roster.members(time.time())}
        if node.state.cluster_key() is None:
            self._refuse_last_keyholder([key])
            await self.take(await self.ask_keyholder(messages.AskForget(key, with_invited), but=key))
        else:
            await self.signed(await self._sign_removals(self._and_invited(key, with_invited), node.me))
        gone = [key for key in before if not node.state.roster.is_member(key, time.time())]
        for key in gone:
            node.cluster.event("left", before[key], "was removed from the cluster")
            node.trail.note("forgotten", node=before[key], key=node.trail.key(key))
        return [before[key] for key in gone]

    def _and_invited(self, key: NodeId, with_invited: bool) -> list[NodeId]:
        """The node, and all that it brought, and all that those brought; never ourselves."""
        roster = self._node.state.roster
        found = [key]
        for inviter in found if with_invited else ():
            mark = short_id(bytes.fromhex(inviter))
            for member in roster.members(time.time()):
                entry = roster.entry(member.id)
                if entry and entry.inviter == mark and member.id not in (*found, self._node.me):
                    found.append(member.id)
        return found

    def _refuse_last_keyholder(self, going: list[NodeId]) -> None:
        node = self._node
        if not set(node.state.roster.keyholders(time.time())) - set(going):
            raise UsageError(
                f"{node.cluster.name(going[0])} alone holds the cluster key: without it nobody can be admitted or"
                " removed.",
                "Run there: omview key share NODE",
            )

    async def _sign_removals(self, going: list[NodeId], by: NodeId) -> bytes:
        """Signed removals; where a keyholder is among them the cluster key is replaced first, for it knows the old."""
        node = self._node
        self.my_key()
        self._refuse_last_keyholder(going)
        if set(going) & set(self.keyholders()):
            await node.turning.rotate(without=going)
        return b"".join(node.state.roster.forget(self.my_key(), one, by, time.time()).raw for one in going)

    def my_key(self) -> ClusterKey:
        """The cluster key. Raises UsageError where this node does not hold it."""
        key = self._node.state.cluster_key()
        if key is None:
            raise UsageError("This node does not hold the cluster key.", "Who does: omview key show")
        return key

    # -- leaving

    async def _leave(self, anyway: bool) -> str:
        node = self._node
        roster = node.state.roster
        if len(roster.members(time.time())) < 2:
            raise UsageError("This machine is alone in its cluster already.")
        _, guests, away = node.jobs.counts()
        if (guests or away) and not anyway:
            raise UsageError(
                f"{guests} guest(s) run here and {away} job(s) of this machine elsewhere.",
                "Send them home first, or lose them: omview leave --anyway",
            )
        await asyncio.to_thread(renewal.prepare, node.places.state)
        try:
            granted = await self._farewell(anyway)
        except OmError:
            renewal.drop(node.places.state)
            raise
        renewal.commit(node.places.state)
        node.trail.note("left", key=node.trail.key(node.me), granted=granted)
        node.restart()
        if granted:
            return "This machine has left; it begins anew, alone, with new keys."
        return "This machine begins anew, alone, with new keys. The others know nothing of it: forget it there."

    async def _farewell(self, anyway: bool) -> bool:
        """Our signed removal is on its way to the others; False: nobody signed it, and we go all the same."""
        node = self._node
        try:
            if not self.keyholders() and node.state.cluster_key() is not None:
                self._refuse_last_keyholder([node.me])
            await self.ask_keyholder(messages.AskLeave())
        except OmError:
            if not anyway:
                raise
        else:
            return True
        key = node.state.cluster_key()
        if key is None:
            return False
        entry = node.state.roster.forget(key, node.me, node.me, time.time())  # the key's last act
        await self.tell_all(entry.raw)
        return True

    # -- copies of the cluster key

    async def export(self, passphrase: str) -> bytes:
        """The cluster key as a backup file's content."""
        node = self._node
        key = self.my_key()
        data = await asyncio.to_thread(seal, Backup(node.state.roster.cluster, key), passphrase)
        replace_private(node.places.state / BACKUP_MARK, short_id(key.public))
        node.trail.note("key exported", key=fingerprint(key.public))
        return data

    def _has_backup(self) -> bool:
        try:
            mark = (self._node.places.state / BACKUP_MARK).read_bytes()
        except OSError:
            return False
        return mark == short_id(self._node.state.roster.cluster_public)

    async def _import(self, data: bytes, passphrase: str) -> str:
        backup = await asyncio.to_thread(unseal, data, passphrase)
        roster = self._node.state.roster
        if backup.cluster != roster.cluster:
            raise UsageError("That is the key of another cluster.", "Become a member of it first: omview join")
        if backup.key.public != roster.cluster_public:
            raise UsageError("That key was replaced by a newer one since.", "omview key show")
        if self._node.state.cluster_key() is not None:
            raise UsageError("This node holds the cluster key already.")
        await self._hold(backup.key, "imported")
        await self.mark_keyholder(self._node.me)
        return "This node holds the cluster key now."

    async def _hold(self, key: ClusterKey, how: str) -> None:
        node = self._node
        check_pair(key)
        await asyncio.to_thread(store_next_cluster_key, node.places.state, key)
        if node.state.cluster_key() is None:  # it is not the cluster's, or not any more
            raise UsageError(f"{node.info.name} cannot use that cluster key.")
        node.trail.note("key taken", key=fingerprint(key.public), how=how)

    async def mark_keyholder(self, holder: NodeId) -> None:
        """Let everybody know that a node holds the key: it can be asked, and is missed."""
        roster = self._node.state.roster
        entry = roster.entry(holder)
        if entry is not None and not entry.flags & KEYHOLDER:
            new = roster.reissue(self.my_key(), holder, time.time(), flags=entry.flags | KEYHOLDER)
            await self.signed(new.raw)

    async def _share(self, word: str) -> str:
        node = self._node
        key = self.my_key()
        other = node.cluster.find(word)
        name = node.cluster.name(other)
        if other == node.me or other in self.keyholders():
            raise UsageError(f"{name} holds the cluster key already.")
        if node.role(other) is not Role.WORK:
            raise UsageError(f"{name} may look only.")
        await node.calls.ask(other, messages.TakeKey(key.public, key.secret), messages.Nothing, ASK_S, name)
        await self.mark_keyholder(other)
        node.trail.note("key shared", node=name, key=node.trail.key(other))
        return f"{name} holds the cluster key too."

    # -- what other nodes ask

    async def answer(self, sender: NodeId, question: Any) -> messages.RosterPage | messages.Nothing:
        """A question of another node about the membership."""
        match question:
            case messages.TakeEntries():
                await self._told(sender, question)
                return messages.Nothing()
            case messages.TakeKey():
                await self._offered(sender, question)
                return messages.Nothing()
            case messages.AskAdmit():
                entries = await self._admit_for(sender, question)
            case messages.AskForget():
                entries = await self._forget_for(sender, question)
            case messages.AskLeave():
                entries = await self._sign_removals([sender], sender)
                self._node.spawn(self._gone(sender, entries, "has left the cluster"))
            case messages.AskRekey():
                entries = self._node.turning.rekey_for(sender, _checked(question.node))
                self._node.spawn(self._gone(sender, entries, "has a new key"))
            case _:
                raise RemoteProtocolError("no question about the membership")
        return messages.RosterPage(entries, 1, self._node.state.roster.rotation.export())

    async def _told(self, sender: NodeId, news: messages.TakeEntries) -> None:
        """News that do not verify are counted: an honest node has verified them before it passes them on."""
        try:
            await self.take(news)
        except (NotTrusted, RemoteProtocolError):
            self._node.guard.drop(sender, Verdict.MALFORMED, self._node.now())
            raise

    async def _offered(self, sender: NodeId, offer: messages.TakeKey) -> None:
        await self.take(messages.TakeEntries(b"", offer.turns))
        roster = self._node.state.roster
        if sender not in roster.keyholders(time.time()) or offer.public != roster.cluster_public:
            raise NotTrusted("Only a keyholder can share the cluster key.")
        if self._node.state.cluster_key() is None:
            await self._hold(ClusterKey(offer.public, offer.secret), f"from {self._node.cluster.name(sender)}")

    def _allow(self, sender: NodeId) -> None:
        """A keyholder signs for members as far as its owner wants it, and a few times an hour."""
        node = self._node
        if node.config.invites != "members":
            raise UsageError(
                f"{node.info.name} signs for its own owner only.", "Run it on a keyholder: omview key show"
            )
        asked = self._asked.setdefault(sender, deque(maxlen=PER_HOUR))
        now = node.now()
        if len(asked) == PER_HOUR and now - asked[0] < 3600:
            node.trail.note("limit", node=node.cluster.name(sender), key=node.trail.key(sender), what="signing")
            raise UsageError(
                f"{node.info.name} has signed {PER_HOUR} times for that node within the hour.",
                f"Run it on {node.info.name} itself, or wait.",
            )
        asked.append(now)

    async def _admit_for(self, sender: NodeId, question: messages.AskAdmit) -> bytes:
        node = self._node
        roster = node.state.roster
        key = self.my_key()
        entry = roster.entry(_checked(question.node))
        if entry is None or entry.gone:
            self._allow(sender)
            entry = roster.admit(key, question.node, sender, time.time(), _role(question.role))
            await self.signed(entry.raw)
            node.trail.note("joined", key=node.trail.key(question.node), via=node.cluster.name(sender))
        return entry.raw

    async def _forget_for(self, sender: NodeId, question: messages.AskForget) -> bytes:
        node = self._node
        key = _checked(question.node)
        if sender == key:
            raise UsageError("A node cannot forget itself.", "omview leave")
        self.my_key()
        entry = node.state.roster.entry(key)
        if entry is not None and entry.gone:
            return entry.raw
        if key == node.me:
            raise UsageError(f"{node.info.name} does not remove itself.", f"Run on {node.info.name}: omview leave")
        self._allow(sender)
        name = node.cluster.name(key)
        entries = await self._sign_removals(self._and_invited(key, question.with_invited), sender)
        await self.signed(entries)
        node.cluster.event("left", name, f"was removed by {node.cluster.name(sender)}")
        node.trail.note("forgotten", node=name, key=node.trail.key(key), via=node.cluster.name(sender))
        return entries

    async def _gone(self, leaver: NodeId, entries: bytes, how: str) -> None:
        """The answer first, then the cut."""
        node = self._node
        name = node.cluster.name(leaver)
        await asyncio.sleep(FAREWELL_S)
        await self.signed(entries)
        node.cluster.event("left", name, how)
        node.trail.note("forgotten", node=name, key=node.trail.key(leaver), via="itself")


def _checked(node: NodeId) -> NodeId:
    if len(node) != 64 or any(char not in "0123456789abcdef" for char in node):
        raise RemoteProtocolError("that is no node")
    return node


def _role(number: int) -> Role:
    if number not in Role._value2member_map_:
        raise RemoteProtocolError("that is no role")
    return Role(number)
