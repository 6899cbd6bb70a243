"""PID 1 of a pod: the loop that joins the job's descriptors, its children and whichever engine is connected.

An engine that connects is greeted with the whole state; while criu runs it must wait for that.
"""

from __future__ import annotations

import os
import select
import struct
import sys
import time

from . import frames, syscalls
from .podcopy import Copy
from .podinit import Hardening, Host, enter, lock
from .podlink import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KILL, _OVERFLOW_UID = 9, 65534
_MAX_WAITING_SIGNALS = 256
_ALONE_MS = 30_000  # an empty pod that no engine looks after is of no use to anybody


class Pod(Copy):
    """The copy of the job and the engine that looks after it."""

    def __init__(self, host: Host, hardening: Hardening, listener: int, kdat: str) -> None:
        super().__init__(host, hardening, kdat)
        self.listener = listener
        self.link: Link | None = None
        self.children = syscalls.watch_children()
        self.poll = select.poll()
        self.watched: dict[int, int] = {}
        self.blocked = False

    # -- the loop

    def run(self) -> None:
        """Serve until killed; returns only from an empty pod that nobody wants."""
        while True:
            self._push()
            self._watch()
            alone = self.link is None and self.phase == "empty"
            timeout = _ALONE_MS if alone else None
            if self.criu:
                timeout = max(0, int((self.criu.deadline - time.monotonic()) * 1000)) + 1
            ready = self.poll.poll(timeout)
            if alone and not ready:
                return
            for fd, _ in ready:
                self._ready(fd)
            if self.criu and time.monotonic() >= self.criu.deadline and not self.criu.expired:
                self.criu.expired = True
                os.kill(self.criu.pid, _KILL)  # the kernel drops ptrace: a dumped job goes on by itself

    def _ready(self, fd: int) -> None:
        if fd == self.children:
            os.read(fd, 128 * 16)
            self.reap()
        elif fd == self.listener:
            self._accept()
        elif self.link and fd == self.link.fd:
            self._hear()
        elif self.relay:
            for stream in self.relay.streams.values():
                if stream.fd == fd and not stream.full:
                    stream.read()
            if fd == self.relay.input.fd and self.phase == "running" and self.relay.input.queue:
                self.relay.input.write()

    def _watch(self) -> None:
        """Tell the kernel what we wait for: only what we can use now, or poll() would spin on hang-ups."""
        wanted = {self.children: select.POLLIN, self.listener: select.POLLIN}
        if self.link:
            wanted[self.link.fd] = select.POLLIN | (select.POLLOUT if self.blocked else 0)
        if relay := self.relay:
            for stream in relay.streams.values():
                if stream.fd >= 0 and not stream.full and self.phase in ("running", "dumping", "ended"):
                    wanted[stream.fd] = select.POLLIN
            entry = relay.input
            if entry.queue and entry.fd >= 0 and self.phase == "running":
                wanted[entry.fd] = wanted.get(entry.fd, 0) | select.POLLOUT
        if wanted != self.watched:
            for fd in self.watched.keys() - wanted.keys():
                self.poll.unregister(fd)
            for fd, mask in wanted.items():
                if self.watched.get(fd) != mask:
                    self.poll.register(fd, mask)
            self.watched = wanted

    def _push(self) -> None:
        self.blocked = False
        if self.link:
            try:
                quiet = self.phase in ("restored", "restoring")
                self.blocked = self.link.send(self.relay, self.stopped, self.status, quiet)
            except OSError:
                self._drop()

    def _drop(self) -> None:
        if self.link:
            self.link.close()
            self.link = None

    # -- the engine's connection

    def _accept(self) -> None:
        try:
            fd = syscalls.accept(self.listener)
        except OSError:
            return
        # Inside a user namespace root shows as "not mapped"; the directory is 0700, so only root and the owner come
        allowed = (os.getuid(), _OVERFLOW_UID if self.hardening.userns else 0)
        if syscalls.peer_uid(fd) not in allowed:
            os.close(fd)
            return
        self._drop()
        self.link = Link(fd)
        for stream in self.relay.streams.values() if self.relay else ():
            stream.rewind()
        if not self.criu:
            self.link.greet(self.state())

    def _hear(self) -> None:
        link = self.link
        if link is None:
            return
        try:
            data = link.read()
            if not data:
                self._drop()
                return
            for kind, payload in link.splitter.feed(data):
                self._obey(kind, payload)
        except BlockingIOError:
            return
        except (struct.error, KeyError, TypeError, ValueError) as error:
            print(f"bad frame: {error}", file=sys.stderr, flush=True)
            self._drop()

    def _obey(self, kind: int, payload: bytes) -> None:
        relay = self.relay
        if kind == frames.K_CALL:
            self.call(frames.unpack(payload))
        elif relay is None:
            return
        elif kind == frames.K_ACK:
            number, offset = frames.OUT.unpack(payload)
            if stream := relay.streams.get(frames.STREAMS[number]):
                stream.acknowledge(offset)
        elif self.phase in ("restored", "restoring", "ended"):
            return
        elif kind == frames.K_CLOSE:
            stream = relay.streams.get(frames.STREAMS[frames.OUT.unpack(payload)[0]])
            if stream and stream.name != "tty":
                stream.close()
        elif kind == frames.K_IN:
            (offset,) = frames.IN.unpack_from(payload)
            relay.input.accept(offset, payload[frames.IN.size :])
            if self.phase == "running" and relay.input.queue:
                relay.input.write()
        elif kind == frames.K_IN_EOF:
            relay.input.end(*frames.IN.unpack(payload))
        elif kind == frames.K_SIGNAL:
            if len(self.signals) < _MAX_WAITING_SIGNALS:
                self.signals.append(frames.SIGNAL.unpack(payload))
            self.apply_signals()
        elif kind == frames.K_RESIZE and relay.pty and self.phase != "frozen":
            relay.pty.resize(*frames.SIZE.unpack(payload))

    def _answer(self, call: dict[str, Any], ok: bool, **more: Any) -> None:
        if self.link:
            if not self.link.ready:
                self.link.greet(self.state())  # it came while criu ran, and knows nothing of this call
            else:
                self.link.reply({"id": call["id"], "ok": ok, "state": self.state(), **more})


def main() -> None:
    """Read the set-up from descriptor 0, go into the namespaces, say "ok" or the error on descriptor 1, serve."""
    with open(0, "rb", closefd=False) as file:
        config = frames.unpack(file.read())
    listener = config["listener"]
    os.set_inheritable(listener, False)
    try:
        held = lock(config["directory"])
        host, hardening = enter(config)
        pod = Pod(host, hardening, listener, config["kdat"])
        syscalls.listen(listener)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
    except OSError as error:
        os.write(1, f"{error.strerror}: {error.filename}".encode())
        os._exit(1)
    os.write(1, b"ok")
    os.dup2(0, 1)
    pod.run()
    os.close(held)
