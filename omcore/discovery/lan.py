"""Announcements on the local network by multicast DNS: members recognise each other, others see a random number.

zeroconf is imported when there is somebody to be found, and not before: it costs 40 ms and 3 MiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omcore.discovery.marks import HOUR_S, MARK_LENGTH, MAX_LABEL, Recogniser, mark
from omcore.transport.addresses import InterfaceEntry, interface_entries
from omcore.trust.tokens import join_address, split_address
from omcore.types import NodeId

if TYPE_CHECKING:
    from zeroconf import ServiceInfo
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

log = logging.getLogger(__name__)

TYPE = "_omview._tcp.local."
VERSION = b"1"
AGAIN_S = 60.0  # after a failure: no multicast here, or somebody has the port for himself
SPREAD_S = 30.0  # all clocks strike at once; the announcements shall not
MAX_ASKING = 8  # announcements whose missing parts are asked for, at the same time
MAX_ADDRESSES = 4
MAX_INVITATIONS = 8
ASK_MS = 2000
Found = Callable[[NodeId, tuple[str, ...]], None]


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is to announce, and whom to look for."""

    listening: tuple[str, ...] = ()
    members: frozenset[NodeId] = frozenset()  # others than oneself
    invitations: frozenset[NodeId] = frozenset()

    @property
    def social(self) -> bool:
        """Whether there is anybody to whom an announcement could be of use."""
        return bool(self.listening and (self.members or self.invitations))


class Lan:
    """One node's voice and ear on the networks it listens on.

    `found(node, addresses)` is called for each member that is heard, as often as it is heard.
    """

    def __init__(self, me: NodeId, found: Found, clock: Callable[[], float] = time.time) -> None:
        self.trouble = ""
        self._me = me
        self._found = found
        self._clock = clock
        self._situation = Situation()
        self._tried: frozenset[str] = frozenset()
        self._sought: dict[NodeId, asyncio.Future[tuple[str, ...]]] = {}
        self._changed = asyncio.Event()
        self._voice: _Voice | None = None

    @property
    def state(self) -> str:
        """For people: on which addresses, or why not."""
        if self._voice is not None:
            return "on " + ", ".join(self._voice.hosts)
        if self.trouble:
            return f"failed: {self.trouble}"
        return "starting" if self._situation.social else "silent: there is nobody to be found"

    def update(self, situation: Situation) -> None:
        """Members, invitations or our own addresses changed."""
        if situation != self._situation:
            self._situation = situation
            self._changed.set()

    async def seek(
        self, invitation: NodeId, listening: tuple[str, ...], seconds: float, but: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Where the node that holds this invitation announces itself, other than at the addresses in `but`.

        () if it does not within `seconds`.
        """
        self._situation = Situation(listening, self._situation.members, self._situation.invitations)
        self._tried = frozenset(but)
        future = self._sought[invitation] = asyncio.get_running_loop().create_future()
        self._changed.set()
        try:
            return await asyncio.wait_for(future, seconds)
        except TimeoutError:
            return ()
        finally:
            del self._sought[invitation]
            self._changed.set()

    async def run(self) -> None:
        """Keep what is announced in step with the situation and the hour, until cancelled."""
        try:
            while True:
                self._changed.clear()
                pause = await self._step()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), pause)
        finally:
            await self._stop()

    async def _step(self) -> float:
        """Do what has to be done; returns the seconds until there may be more."""
        now = self._situation
        wanted = now.social or bool(self._sought and now.listening)
        if self._voice is not None and (not wanted or self._voice.listening != now.listening):
            await self._stop()
        if not wanted:
            self.trouble = ""
            return AGAIN_S * 60
        try:
            if self._voice is None:
                self._voice = await _Voice.open(now.listening, self._heard)
                log.info("discovery on=%s", ",".join(self._voice.hosts))
            self._voice.recogniser.set_keys(now.members)
            await self._voice.say(self._text(self._voice.label))
            self.trouble = ""
        except OSError as error:
            if not self.trouble:
                log.warning("discovery failed error=%s", error)
            await self._stop()
            self.trouble = error.strerror or str(error)
            return AGAIN_S
        return HOUR_S - self._clock() % HOUR_S + random.uniform(0, SPREAD_S)

    def _text(self, label: str) -> dict[str, str] | None:
        """The TXT record of this hour; None: we only listen."""
        now = self._situation
        if not now.social:
            return None
        hour = int(self._clock()) // HOUR_S
        text = {"v": VERSION.decode(), "t": mark(self._me, hour, label)}
        if now.invitations:
            text["i"] = "".join(sorted(mark(key, hour, label) for key in now.invitations)[:MAX_INVITATIONS])
        return text

    def _heard(self, label: str, text: dict[bytes, bytes | None], addresses: tuple[str, ...]) -> None:
        voice = self._voice
        if voice is None or text.get(b"v") != VERSION or not addresses:
            return
        node = voice.recogniser.find(_ascii(text.get(b"t")), label, self._clock())
        if node is not None:
            self._found(node, addresses)
        marks = _ascii(text.get(b"i"))[: MARK_LENGTH * MAX_INVITATIONS]
        for at in range(0, len(marks), MARK_LENGTH) if self._sought else ():
            self._answer(marks[at : at + MARK_LENGTH], label, addresses)

    def _answer(self, found: str, label: str, addresses: tuple[str, ...]) -> None:
        addresses = tuple(address for address in addresses if address not in self._tried)
        seeker = Recogniser()
        seeker.set_keys(self._sought)
        key = seeker.find(found, label, self._clock())
        if addresses and key is not None and not self._sought[key].done():
            self._sought[key].set_result(addresses)

    async def _stop(self) -> None:
        voice, self._voice = self._voice, None
        if voice is not None:
            await voice.close()


class _Voice:
    """zeroconf at work on the given addresses: one browser, and an announcement while there is one.

    Instance and host have random labels, drawn anew each time.
    """

    def __init__(self, listening: tuple[str, ...], zeroconf: AsyncZeroconf, heard: Callable[..., None]) -> None:
        self.listening = listening
        self.hosts, self._port = announced(listening)
        self.label = secrets.token_hex(8)
        self.recogniser = Recogniser()
        self._host = secrets.token_hex(8)
        self._zeroconf = zeroconf
        self._heard = heard
        self._browser: AsyncServiceBrowser | None = None
        self._said: ServiceInfo | None = None
        self._saying: object = None  # zeroconf's own task, which nobody else holds
        self._asking: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, listening: tuple[str, ...], heard: Callable[..., None]) -> _Voice:
        """Begin to listen; raises OSError where there is no multicast."""
        await asyncio.to_thread(_load)
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        hosts, _ = announced(listening)
        try:
            zeroconf = AsyncZeroconf(interfaces=list(hosts))
        except RuntimeError as error:  # no such address any more
            raise OSError(str(error)) from error
        voice = cls(listening, zeroconf, heard)
        await zeroconf.zeroconf.async_wait_for_start()
        _only_there(zeroconf, hosts)
        voice._browser = AsyncServiceBrowser(zeroconf.zeroconf, TYPE, handlers=[voice._seen])
        return voice

    async def say(self, text: dict[str, str] | None) -> None:
        """Announce this; None: nothing (any more)."""
        if text is None:
            if self._said is not None:
                self._saying = await self._zeroconf.async_unregister_service(self._said)
                self._said = None
            return
        from zeroconf import ServiceInfo

        info = ServiceInfo(
            TYPE,
            f"{self.label}.{TYPE}",
            port=self._port,
            properties=dict(text),
            server=f"{self._host}.local.",
            parsed_addresses=list(self.hosts),
        )
        if self._said is None:
            # Labels of 64 random bits are nobody else's: no need to ask the whole network whether they are free.
            self._saying = await self._zeroconf.async_register_service(info, cooperating_responders=True)
        elif info.text != self._said.text:
            self._saying = await self._zeroconf.async_update_service(info)
        else:
            return
        self._said = info

    async def close(self) -> None:
        """Say goodbye and fall silent."""
        for task in tuple(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        if self._browser is not None:
            await self._browser.async_cancel()
        await self._zeroconf.async_close()

    def _seen(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        from zeroconf import ServiceStateChange
        from zeroconf.asyncio import AsyncServiceInfo

        label = name.removesuffix("." + TYPE)
        if state_change is ServiceStateChange.Removed or label == self.label or len(label) > MAX_LABEL:
            return
        info = AsyncServiceInfo(TYPE, name)
        if info.load_from_cache(zeroconf):
            self._tell(label, info)
        elif len(self._asking) < MAX_ASKING:  # those beyond announce themselves again
            task = asyncio.ensure_future(self._ask(zeroconf, label, info))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self, zeroconf: Any, label: str, info: Any) -> None:
        if await info.async_request(zeroconf, ASK_MS):
            self._tell(label, info)

    def _tell(self, label: str, info: Any) -> None:
        addresses = usable(info.parsed_scoped_addresses(), int(info.port or 0), self.hosts)
        self._heard(label, dict(info.properties), addresses)


def announced(listening: Iterable[str]) -> tuple[tuple[str, ...], int]:
    """Hosts and port of one announcement, which has room for one port; raises OSError where there is nothing to say."""
    pairs = [split_address(address) for address in listening]
    pairs = [(host, port) for host, port in pairs if _kind(host) != "none"]
    if not pairs:
        raise OSError("no address that could be announced")
    port = pairs[0][1]
    return tuple(dict.fromkeys(host for host, other in pairs if other == port)), port


def usable(hosts: Iterable[str], port: int, own: Iterable[str]) -> tuple[str, ...]:
    """The announced addresses that may be dialled: such as we have ourselves, not the wide Internet's or our own
    loopback, or a forger could have us knock at anybody's door."""
    kinds = {_kind(host) for host in own}
    good = [host for host in hosts if port and _kind(host) in kinds]
    return tuple(join_address(host, port) for host in dict.fromkeys(good))[:MAX_ADDRESSES]


def _kind(host: str) -> str:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return "none"
    if ip.is_unspecified or ip.is_multicast:
        return "none"
    # 100.64/10 is shared space, neither private nor global to Python; it is a local network all the same.
    return f"{ip.version} loopback" if ip.is_loopback else f"{ip.version} {'public' if ip.is_global else 'local'}"


def _ascii(value: bytes | None) -> str:
    return (value or b"").decode("ascii", "replace")


def _load() -> None:
    """The import, in a thread: the engine goes on meanwhile."""
    import zeroconf
    import zeroconf.asyncio

    assert zeroconf
    logging.getLogger("zeroconf").setLevel(logging.ERROR)  # it warns of strangers' odd packets


def _only_there(zeroconf: AsyncZeroconf, hosts: tuple[str, ...]) -> None:
    """Hear and answer on our own interfaces only, though zeroconf's listening socket is open to all."""
    import socket

    near = Near(hosts)
    for reader in zeroconf.zeroconf.engine.readers:
        reader.transport.set_protocol(_Filter(reader.transport.get_protocol(), near))
        sock = reader.transport.get_extra_info("socket")
        if sock is None:
            continue
        option = (socket.IPPROTO_IPV6, 29) if sock.family == socket.AF_INET6 else (socket.IPPROTO_IP, 49)
        try:
            sock.setsockopt(
                *option, 0
            )  # IPV6_MULTICAST_ALL, IP_MULTICAST_ALL of linux/in6.h, in.h: only what we joined
        except OSError:  # IPv6: since Linux 4.20
            log.debug("an older kernel: other programs' groups are heard, too")


class Near:
    """Which senders are on the networks of these addresses of ours."""

    def __init__(self, hosts: Iterable[str], entries: Iterable[InterfaceEntry] | None = None) -> None:
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._links: set[int] = set()
        ours = [ipaddress.ip_address(host) for host in hosts]
        for entry in interface_entries() if entries is None else entries:
            network = ipaddress.ip_network(f"{entry.address}/{entry.prefix}", strict=False)
            if any(ip.version == network.version and ip in network for ip in ours):
                self._networks.append(network)
                self._links.add(entry.link)

    def holds(self, sender: tuple[Any, ...]) -> bool:
        """Whether a datagram's sender (address, port, and for IPv6 flow and scope) is there."""
        try:
            ip = ipaddress.ip_address(str(sender[0]).partition("%")[0])
        except ValueError:
            return False
        if ip.version == 6 and ip.is_link_local:
            return len(sender) > 3 and sender[3] in self._links
        return any(ip.version == network.version and ip in network for network in self._networks)


class _Filter(asyncio.DatagramProtocol):
    """Stands before zeroconf's protocol and lets only the near through (RFC 6762, section 11)."""

    def __init__(self, inner: Any, near: Near) -> None:
        self._inner = inner
        self._near = near

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """A packet came."""
        if self._near.holds(addr):
            self._inner.datagram_received(data, addr)

    def error_received(self, exc: Exception) -> None:
        """The socket complains."""
        self._inner.error_received(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._inner.connection_lost(exc)
