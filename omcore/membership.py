"""Who belongs: greeting, the roster's spread, invitations, joining and forgetting; and where we listen."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from omcore import __version__, messages, requests
from omcore.discovery.lan import Situation
from omcore.errors import OmError, PeerUnreachable, RemoteProtocolError, UsageError
from omcore.text import clean
from omcore.transport.addresses import default_listen, public_addresses
from omcore.transport.ask import join
from omcore.trust.invites import Join, Joined, JoinRefused, NeedsKeyholder, decode_join, encode, handle_join
from omcore.trust.passes import Role
from omcore.trust.tokens import join_address, parse_token
from omcore.types import NodeId, NodeState

if TYPE_CHECKING:
    from omcore.node import Node

log = logging.getLogger(__name__)

HELLO_S = 2.0
"""How often a node that we know nothing of is greeted."""
GREET_ALL_S = 60.0
SAVE_AGAIN_S = 60.0
KNOWN = 8


class Membership:
    """The node's view of who may talk to it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.listening: tuple[str, ...] = ()
        self._greeted: dict[NodeId, float] = {}
        self._fetching: set[NodeId] = set()
        self._unsaved: float | None = None  # when writing the roster down failed
        self._cut_end: float | None = None

    async def changed(self) -> None:
        """The roster or the invitations changed: listen if need be, admit and dial exactly the members."""
        node = self._node
        now = time.time()
        members = node.state.roster.members(now)
        invitations = node.state.invites.live(now)
        if (len(members) > 1 or invitations) and not self.listening:
            await self._listen()
        node.numbered()
        node.cluster.set_members((member.id, member.number) for member in members if member.number)
        node.gossip.set_members([member.number for member in members if member.number])
        others = {member.number: member.id for member in members if member.id != node.me and member.number}
        node.lists.members = others if node.role(node.me) is Role.WORK else {}
        node.guard.keep(others.values())
        node.transport.set_invitations(invitations)
        self.set_peers()
        node.finder.update(Situation(self.listening, frozenset(others.values()), frozenset(invitations)))
        self.greet(list(others.values()))
        node.touch()

    async def _listen(self) -> None:
        config = self._node.config
        wanted = [join_address(address, config.port) for address in config.listen] or list(default_listen(config.port))
        if not wanted:
            public = ", ".join(public_addresses()) or "none"
            log.warning("no private address to listen on, public=%s", public)
            self._node.warnings += (f"only public addresses ({public}): name one with omview serve --listen ADDRESS",)
            return
        self.listening = await self._node.transport.listen(wanted)
        log.info("listening addresses=%s", ",".join(self.listening))

    def set_peers(self) -> None:
        """Members with the addresses to try; again whenever one is news."""
        node = self._node
        now = node.now()
        dialled = node.finder.book.dialled(node.cluster.infos, node.me)
        node.transport.set_peers({key: where for key, where in dialled.items() if not node.guard.is_cut(key, now)})
        self._cut_end = node.guard.next_end(now)

    def addressed(self, node: NodeId) -> None:
        """A member's address is new to us: it may not know ours either, so greet it there."""
        self.set_peers()
        if node != self._node.me:
            self.greet([node])

    def met(self, node: NodeId) -> None:
        """The LAN says that a member is near: greet it, unless we hear from it anyway."""
        info = self._node.cluster.infos.get(node)
        if info is not None and self._node.gossip.state(info.number, self._node.now()) is not NodeState.UP:
            self.greet([node])

    # -- greeting

    def greet(self, nodes: list[NodeId], want: bool = True) -> None:
        """Tell nodes who we are; a single one also of some whom we know.

        It asks for the rest by itself (`introductions`).  To tell all of all would be n^2 infos: 24 kB/s at n = 64.
        """
        node = self._node
        heard = [info for info in node.cluster.infos.values() if info.serial] if len(nodes) == 1 else []
        known = tuple(random.sample(heard, min(KNOWN, len(heard))))
        hello = messages.Hello(node.info, known, want, node.state.roster.digest(), node.confirming.head)
        for key in nodes:
            self._greeted[key] = node.now()
            node.post(key, hello)

    def tick(self, now: float) -> None:
        """Greet those who are new to us every two seconds, all others once a minute (as they do us)."""
        if self._cut_end is not None and now >= self._cut_end:
            self.set_peers()
        due = [
            (key, bool(info.serial))
            for key, info in self._node.cluster.infos.items()
            if key != self._node.me and now - self._greeted.get(key, 0.0) > (GREET_ALL_S if info.serial else HELLO_S)
        ]
        self.greet([key for key, heard in due if not heard])
        self.greet([key for key, heard in due if heard], want=False)
        if self._unsaved is not None and time.monotonic() - self._unsaved > SAVE_AGAIN_S:
            self._unsaved = None
            self._node.spawn(self.save_roster())

    def hello(self, sender: NodeId, message: messages.Hello) -> None:
        """A greeting: learn names and addresses, and fetch the roster where it differs from ours."""
        if message.info.id != sender:
            raise RemoteProtocolError("a Hello in another's name")
        cluster = self._node.cluster
        news = cluster.learn(message.info, itself=True)
        for info in (info for info in message.known[:256] if info.id == self._node.me):
            self._node.heard_of_me(sender, info)
        for info in message.known[:256] if self._node.role(sender) is Role.WORK else ():
            news = cluster.learn(info) or news
        if message.want:
            self.greet([sender], want=False)
        self._node.confirming.heard(sender, message.roster, message.head)
        if message.roster != self._node.state.roster.digest() and sender not in self._fetching:
            self._fetching.add(sender)
            self._node.spawn(self._fetch(sender))
        if news:
            self._node.touch()

    async def _fetch(self, node: NodeId) -> None:
        """Ask for the entries that we may lack; each verifies itself."""
        try:
            page, pages = 0, 1
            while page < pages:
                answer = await self._node.calls.ask(node, messages.AskRoster(page), messages.RosterPage, 10)
                pages = min(answer.pages, 100)
                await self._node.signing.take(answer)
                page += 1
        except OmError as error:
            log.info("roster not fetched from=%s error=%s", self._node.cluster.name(node), error)
        finally:
            self._fetching.discard(node)

    async def save_roster(self) -> None:
        """Write the roster down; where that cannot be it counts all the same, and is tried again each minute."""
        await asyncio.to_thread(self._save)

    def _save(self) -> None:
        try:
            self._node.state.roster.save(self._node.places.state)
            self._unsaved = None
        except OSError as error:
            log.warning("roster not saved error=%s", error)
            self._unsaved = time.monotonic()

    def roster_page(self, page: int) -> messages.RosterPage:
        """One page of our roster; raises `UsageError`."""
        pages = list(self._node.state.roster.pages())
        if not 0 <= page < len(pages):
            raise UsageError("There is no such page.")
        return messages.RosterPage(pages[page], len(pages), self._node.state.roster.rotation.export())

    # -- joining, leaving

    async def ask(self, message: Any) -> str:
        """A face's wish about membership; answers in words."""
        match message:
            case requests.Invite():
                return await self._invite(Role.LOOK if message.look else Role.WORK)
            case requests.Join():
                return await self._join(message.token)
            case _:
                return await self._forget(message.node, message.with_invited)

    async def _invite(self, role: Role) -> str:
        node, state = self._node, self._node.state
        node.signing.refuse_without_keyholder()
        if not self.listening:
            await self._listen()
        try:
            token = state.invites.make(state.roster, node.me, self.listening, time.time(), role=role)
        except OSError as error:
            text = f"The invitation cannot be written down: {error.strerror}."
            raise UsageError(text, f"Make room in {state.directory}") from error
        await self.changed()
        node.trail.note("invited", role=role.name.lower(), invitations=len(state.invites.live(time.time())))
        return token

    async def _join(self, text: str) -> str:
        node = self._node
        token = parse_token(text, time.time())
        if not self.listening:
            await self._listen()
        try:
            address = await join(node.state, token, node.info.name, __version__, self.listening, time.time())
        except PeerUnreachable:  # its address may have changed since it was invited
            elsewhere = await node.finder.seek(token.key.id, self.listening, token.addresses)
            if not elsewhere:
                raise
            token = replace(token, addresses=elsewhere)
            address = await join(node.state, token, node.info.name, __version__, self.listening, time.time())
        await self.changed()
        node.trail.note("joined", node=node.info.name, key=node.trail.key(node.me), via=address)
        self._met(token.inviter, (address, *(other for other in token.addresses if other != address)))
        number = node.info.number
        return f"This machine is now node {number} of that cluster."

    def _met(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        """A new neighbour: greet it where we can reach it, and it tells us the rest."""
        self._node.cluster.reached(node, addresses)
        self.greet([node])

    async def _admitted(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        await self.changed()
        self._node.trail.note("joined", key=self._node.trail.key(node), via=", ".join(addresses))
        self._met(node, addresses)

    async def _forget(self, word: str, with_invited: bool) -> str:
        node = self._node
        key = node.cluster.find(word)
        if key == node.me:
            raise UsageError("A node cannot forget itself.", "omview leave")
        names = await node.signing.forget(key, with_invited)
        verb = "is" if len(names) == 1 else "are"
        return f"{', '.join(names)} {verb} removed from the cluster; every node cuts it off as it hears."

    def joins(self, packet: Any) -> None:
        """A newcomer with an invitation: the only thing it may say is Join."""
        node = self._node
        state = node.state
        try:
            question = decode_join(packet.data)
            answer = handle_join(
                state.roster, state.invites, state.cluster_key(), node.me, packet.sender, question, time.time()
            )
        except (RemoteProtocolError, OSError) as error:  # a full disk: the invitation cannot be bound
            log.warning("join refused address=%s error=%s", packet.address, error)
            node.transport.cut(packet)
            return
        except UsageError as error:
            answer = JoinRefused(error.text[:300], error.hint[:300])
        if isinstance(answer, NeedsKeyholder):
            node.spawn(self._join_signed(packet, question, answer))
        else:
            self._answer_join(packet, question, answer)

    async def _join_signed(self, packet: Any, question: Join, need: NeedsKeyholder) -> None:
        """Have a keyholder sign, then answer."""
        node = self._node
        answer: Joined | JoinRefused = JoinRefused("the keyholder did not admit this node")
        try:
            await node.signing.admit(need.node, need.role)
            now = time.time()
            again = handle_join(node.state.roster, node.state.invites, None, node.me, packet.sender, question, now)
            if not isinstance(again, NeedsKeyholder):
                answer = again
        except OmError as error:
            answer = JoinRefused(error.text[:300], error.hint[:300])
        self._answer_join(packet, question, answer)

    def _answer_join(self, packet: Any, question: Join, answer: Joined | JoinRefused) -> None:
        node = self._node
        if isinstance(answer, Joined):
            self._save()  # before the newcomer hears that it is in
            node.transport.reply(packet, encode(answer), cut=True)
            node.spawn(self._admitted(NodeId(question.node_key), question.addresses))
            return
        node.trail.note("refused", key=node.trail.key(packet.sender), address=packet.address, why=answer.text)
        if answer.alarm:
            node.cluster.event("error", clean(question.name, 64), "used an invitation that another node had used")
        node.transport.reply(packet, encode(JoinRefused(answer.text, answer.hint)), cut=True)
