"""Where each member may be dialled, best first: what it said itself, what the LAN hints, map and list.  Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from omcore.config import join_peer, split_peer
from omcore.discovery.openmosix import MapEntry
from omcore.types import NodeId, NodeInfo

MAX_HINTS = 4  # newest first: a forger of hints cannot push out what a node said itself
MAX_TRIED = 64  # of the list, for one node; those further off are heard of by gossip


class AddressBook:
    """`peers`: "host:port" of anybody; the map's entries belong to node numbers.

    Names are not dialled before somebody has looked them up (`names`, `resolved`).
    """

    def __init__(self, peers: Sequence[str] = (), entries: Sequence[MapEntry] = (), port: int = 0) -> None:
        self._peers = tuple(peers)
        self._mapped: dict[int, tuple[str, ...]] = {}
        for entry in entries:
            self._mapped[entry.number] = (*self._mapped.get(entry.number, ()), join_peer(entry.host, port))
        self._found: dict[str, tuple[str, ...]] = {}
        self._hints: dict[NodeId, tuple[str, ...]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """What has a host name in it and must be looked up, as "name:port"."""
        every = (*self._peers, *(address for some in self._mapped.values() for address in some))
        return tuple(dict.fromkeys(address for address in every if not _is_numeric(address)))

    def resolved(self, name: str, addresses: Sequence[str]) -> bool:
        """What one of `names` means; True where that is news."""
        news = tuple(dict.fromkeys(addresses))
        if self._found.get(name) == news:
            return False
        self._found[name] = news
        return True

    def hint(self, node: NodeId, addresses: Sequence[str]) -> bool:
        """Somebody says that `node` is there; True where that is news."""
        old = self._hints.get(node, ())
        if all(address in old for address in addresses):
            return False
        self._hints[node] = tuple(dict.fromkeys((*addresses, *old)))[:MAX_HINTS]
        return True

    def dialled(self, infos: Mapping[NodeId, NodeInfo], me: NodeId) -> dict[NodeId, tuple[str, ...]]:
        """The members other than `me`, each with the addresses to try, in order."""
        self._hints = {node: hints for node, hints in self._hints.items() if node in infos}
        unheard = any(not info.serial for key, info in infos.items() if key != me)
        static = self._unclaimed(infos) if unheard else ()
        return {key: self._for(info, static) for key, info in infos.items() if key != me}

    def _for(self, info: NodeInfo, static: tuple[str, ...]) -> tuple[str, ...]:
        known = (*info.addresses, *self._hints.get(info.id, ()), *self._numeric(self._mapped.get(info.number, ())))
        if info.serial or not static:
            return tuple(dict.fromkeys(known))
        # Each begins at another place of the list, or all would try the first address at once.
        turn = info.number % len(static)
        return tuple(dict.fromkeys((*known, *(static[turn:] + static[:turn])[:MAX_TRIED])))

    def _unclaimed(self, infos: Mapping[NodeId, NodeInfo]) -> tuple[str, ...]:
        """The list and the map without those addresses that somebody said are its own."""
        claimed = {address for info in infos.values() if info.serial for address in info.addresses}
        every = (*self._peers, *(address for some in self._mapped.values() for address in some))
        return tuple(dict.fromkeys(address for address in self._numeric(every) if address not in claimed))

    def _numeric(self, addresses: Sequence[str]) -> tuple[str, ...]:
        return tuple(
            found
            for address in addresses
            for found in ((address,) if _is_numeric(address) else self._found.get(address, ()))
        )


def _is_numeric(address: str) -> bool:
    try:
        ipaddress.ip_address(split_peer(address)[0])
    except ValueError:
        return False
    return True
