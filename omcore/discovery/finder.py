"""All ways to an address in one: what the engine asks and tells."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from omcore.config import DEFAULT_PORT, Config
from omcore.discovery.book import AddressBook
from omcore.discovery.lan import Lan, Situation
from omcore.discovery.names import keep_resolved
from omcore.discovery.openmosix import MapEntry, parse_map
from omcore.errors import ConfigError
from omcore.types import NodeId

MAX_MAP_BYTES = 1 << 20
SEEK_S = 4.0


class Finder:
    """`changed()` is called when somebody may be dialled elsewhere, `met(node)` when that was the LAN's word."""

    def __init__(
        self, me: NodeId, config: Config, folder: Path, changed: Callable[[], None], met: Callable[[NodeId], None]
    ) -> None:
        """Reads the map, if there is one; a relative path begins in `folder`.  Raises ConfigError."""
        self.book = AddressBook(config.peers, read_map(config, folder), config.port or DEFAULT_PORT)
        self._lan = Lan(me, self._found) if config.discover else None
        self._changed = changed
        self._met = met

    @property
    def state(self) -> str:
        """What discovery does, in words."""
        return self._lan.state if self._lan else "off"

    def update(self, situation: Situation) -> None:
        """Members, invitations or our own addresses changed."""
        if self._lan:
            self._lan.update(situation)

    async def seek(self, invitation: NodeId, listening: tuple[str, ...], but: tuple[str, ...]) -> tuple[str, ...]:
        """Where on the LAN the node that holds this invitation is, other than at `but`; () after some seconds."""
        return await self._lan.seek(invitation, listening, SEEK_S, but) if self._lan else ()

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What has to run as long as the engine."""
        names = keep_resolved(self.book, self._changed, random.Random())
        return (names, self._lan.run()) if self._lan else (names,)

    def _found(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        if self.book.hint(node, addresses):
            self._changed()
        self._met(node)


def read_map(config: Config, folder: Path) -> tuple[MapEntry, ...]:
    """The entries of the configured map; () without one.  Raises ConfigError that names the file, and the line."""
    if not config.map:
        return ()
    path = folder / Path(config.map).expanduser()
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_MAP_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"map = {path} cannot be read: {error.strerror}", "is the path right?") from error
    if len(data) > MAX_MAP_BYTES:
        raise ConfigError(f"{path} is too long for a map", f"at most {MAX_MAP_BYTES} bytes; is it the right file?")
    try:
        return parse_map(data.decode(), str(path))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text", "is it the right file?") from error
