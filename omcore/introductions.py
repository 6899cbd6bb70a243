"""Being introduced: whose address we lack, we ask of those whom we can reach.

A greeting goes to nodes with a known address only, so a member that came later, or that was never near, would stay
a number without a name.  One question every two seconds to one node that answers, while there is anybody unheard.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from omcore import messages
from omcore.errors import OmError
from omcore.types import NodeId

if TYPE_CHECKING:
    from omcore.node import Node

EVERY_S = 2.0
MOST = 64
"""Nodes asked for in one question; also the most infos in an answer (about 300 bytes each)."""


class Introductions:
    """Asks for and gives infos of members."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._next = 0.0
        self._asking = False

    def tick(self, now: float) -> None:
        """Ask somebody, if it is time and there is anybody to be asked for."""
        if now < self._next or self._asking:
            return
        self._next = now + EVERY_S
        node = self._node
        unheard = [info.number for info in node.cluster.infos.values() if not info.serial and info.id != node.me]
        known = [key for key, info in node.cluster.infos.items() if info.serial and key != node.me]
        if unheard and known:
            self._asking = True
            asked = random.sample(unheard, min(MOST, len(unheard)))
            node.spawn(self._ask(random.choice(known), tuple(asked)))

    async def _ask(self, whom: NodeId, numbers: tuple[int, ...]) -> None:
        node = self._node
        try:
            answer = await node.calls.ask(whom, messages.AskInfos(numbers), messages.Infos, EVERY_S)
            for info in answer.infos[:MOST]:
                if node.cluster.learn(info):
                    node.touch()
        except OmError:
            pass  # the next one is asked soon
        finally:
            self._asking = False

    def answer(self, question: messages.AskInfos) -> messages.Infos:
        """What we heard of these nodes."""
        cluster = self._node.cluster
        keys = [cluster.numbers.get(number) for number in question.numbers[:MOST]]
        infos = [cluster.infos[key] for key in keys if key is not None and key in cluster.infos]
        return messages.Infos(tuple(info for info in infos if info.serial))
