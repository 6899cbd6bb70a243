"""Host names of the list and the map, looked up outside the event loop, again and again: addresses change."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable

from omcore.config import join_peer, split_peer
from omcore.discovery.book import AddressBook

log = logging.getLogger(__name__)

AGAIN_S = 300.0
FAILED_AGAIN_S = 30.0
MAX_FOUND = 4  # addresses of one name


async def look_up(name: str) -> tuple[str, ...]:
    """The "address:port"s behind "name:port"; raises OSError.  A thread waits for the answer, not the loop."""
    host, port = split_peer(name)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(join_peer(str(entry[4][0]), port) for entry in found))[:MAX_FOUND]


async def keep_resolved(book: AddressBook, changed: Callable[[], None], rng: random.Random) -> None:
    """Look all names of the book up, one after the other, for ever; `changed` is called after news."""
    silent: set[str] = set()
    while book.names:
        news, failed = False, False
        for name in book.names:
            try:
                news = book.resolved(name, await look_up(name)) or news
                silent.discard(name)
            except (OSError, UnicodeError) as error:  # an address found earlier stays
                failed = True
                if name not in silent:  # told once, until it works again
                    log.warning("name not found name=%s error=%s", name, error)
                    silent.add(name)
        if news:
            changed()
        await asyncio.sleep((FAILED_AGAIN_S if failed else AGAIN_S) * rng.uniform(0.8, 1.2))
