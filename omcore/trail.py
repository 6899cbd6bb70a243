"""What the engine writes into its audit log: orders and results, and once a second what was refused or dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from omcore import messages, requests
from omcore.audit import Audit
from omcore.errors import OmError, ProtocolError
from omcore.trust.keys import fingerprint
from omcore.types import Dropped, NodeId, SecurityView
from omcore.wire import Codec

if TYPE_CHECKING:
    from omcore.node import Node
    from omcore.trust.guard import Verdict


class Trail:
    """The audit log of one engine, with names where a person would look for them."""

    def __init__(self, node: Node, audit: Audit) -> None:
        self._node = node
        self._audit = audit
        self.note = audit.note
        self._dropped: Counter[tuple[NodeId, Verdict]] = Counter()

    def key(self, node: NodeId) -> str:
        """A node's key as people compare it."""
        return fingerprint(bytes.fromhex(node))

    def view(self) -> SecurityView:
        """What `omview doctor --security` asks the engine."""
        node = self._node
        return SecurityView(
            me=node.me,
            kind=node.kind,
            listening=node.membership.listening,
            share=node.config.share,
            invites=node.config.invites,
            discover=node.config.discover,
            refused=node.transport.stats.refused,
            dropped=tuple(
                Dropped(node.cluster.name(key), why.value, count) for (key, why), count in node.guard.dropped.items()
            ),
        )

    def tick(self) -> None:
        """Once a second: strangers at the door, and what members sent that was not taken."""
        for refusal in self._node.transport.refusals():
            self._audit.note_seldom(
                "refused", key=self.key(refusal.key), address=refusal.address, why="its key is not in the roster"
            )
        new = self._node.guard.dropped - self._dropped
        for (node, why), count in new.items():
            self.note("dropped", node=self._node.cluster.name(node), key=self.key(node), why=why.value, count=count)
        if new or len(self._dropped) != len(self._node.guard.dropped):
            self._dropped = Counter(self._node.guard.dropped)

    @contextmanager
    def order(self, sender: NodeId, question: Any) -> Iterator[None]:
        """Note what another node told us to do, and how that went."""
        match question:
            case messages.Forward():
                told = _told(question.request)
            case messages.SignalHere():
                told = {"what": "signal", "target": f"process {question.key.pid}", "signal": question.signum}
            case messages.Launch():
                told = {"what": "launch", "target": question.job}
            case _:
                told = None
        with self._result(told, actor="", via=self._node.cluster.name(sender), key=self.key(sender)):
            yield

    @contextmanager
    def request(self, uid: int, message: Any) -> Iterator[None]:
        """Note what somebody at this machine told us to do, and how that went."""
        told = _words(message)
        with self._result(told, actor=f"uid {uid}", via="local", key=""):
            yield

    @contextmanager
    def _result(self, told: dict[str, str | int] | None, actor: str, via: str, key: str) -> Iterator[None]:
        result = "cancelled"
        try:
            yield
            result = "done"
        except OmError as error:
            result = f"refused: {error.text}"
            raise
        finally:
            if told is not None:
                self.note("order", actor=actor, via=via, key=key, **told, result=result)


def _told(request: bytes, codec: Codec = requests.CONTROL) -> dict[str, str | int] | None:
    try:
        return _words(codec.decode(request))
    except ProtocolError:
        return {"what": "nonsense", "target": ""}


def _words(message: Any) -> dict[str, str | int] | None:
    """The order in a request; None: it is a question."""
    match message:
        case requests.Migrate():
            return {"what": "migrate", "target": message.job, "to": message.to}
        case requests.Lock():
            return {"what": "lock" if message.locked else "unlock", "target": message.job}
        case requests.Signal():
            return {"what": "signal", "target": message.job, "signal": message.signum}
        case requests.SignalProcess():
            target = f"process {message.key.pid} of node {message.key.node}"
            return {"what": "signal", "target": target, "signal": message.signum}
        case _:
            return None
