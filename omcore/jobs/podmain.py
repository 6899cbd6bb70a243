"""PID 1 of a pod: starts, relays, dumps and restores one job, on the word of whichever engine is connected.

Phases: empty -> running (start) -> frozen (dump) -> running (undo); empty -> restored (restore) -> running (resume);
running -> ended.  While criu runs the phase is "dumping" or "restoring" and a connecting engine must wait for the
greeting.  Nothing here ever continues a stopped job by itself: a copy goes on only on an engine's word.
"""

from __future__ import annotations

import os
import select
import struct
import sys
import termios
import time

from . import frames, podexec, podimages, podtree, syscalls
from .podinit import Hardening, Host, enter, lock
from .podlink import Link
from .podrelay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KILL, _OVERFLOW_UID = 9, 65534
_MAX_WAITING_SIGNALS = 256
_KDAT = "/run/criu.kdat"


class _Refused(Exception):
    """A call that cannot be done; the text goes to the engine."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


class _Criu:
    """A running criu: what for, until when, and where its images are."""

    def __init__(self, call: dict[str, Any], pid: int, images: int) -> None:
        self.call = call
        self.pid = pid
        self.images = images
        self.started = time.monotonic()
        self.deadline = self.started + call["timeout"]
        self.expired = False
        self.saved: dict[str, Any] = {}


class Pod:
    """The whole state of PID 1."""

    def __init__(self, host: Host, hardening: Hardening, listener: int, kdat: str) -> None:
        self.host = host
        self.hardening = hardening
        self.listener = listener
        self.kdat = kdat
        self.phase = "empty"
        self.root = 0
        self.stopped = 0  # signal that stopped the root; 0: it runs
        self.status: int | None = None
        self.relay: Relay | None = None
        self.link: Link | None = None
        self.criu: _Criu | None = None
        self.asleep: list[int] = []  # tasks that the user had stopped before the cut
        self.signals: list[tuple[int, int]] = []  # numbered signals that wait for the end of a dump
        self.children = syscalls.watch_children()
        self.poll = select.poll()
        self.watched: dict[int, int] = {}
        self.blocked = False

    # -- the loop

    def run(self) -> None:
        """Serve until killed."""
        while True:
            self._push()
            self._watch()
            timeout = max(0.0, self.criu.deadline - time.monotonic()) * 1000 + 1 if self.criu else None
            for fd, _ in self.poll.poll(timeout):
                self._ready(fd)
            if self.criu and time.monotonic() >= self.criu.deadline and not self.criu.expired:
                self.criu.expired = True
                os.kill(self.criu.pid, _KILL)  # the kernel drops ptrace: a dumped job goes on by itself

    def _ready(self, fd: int) -> None:
        if fd == self.children:
            os.read(fd, 128 * 16)
            self._reap()
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

    def state(self) -> dict[str, Any]:
        """Everything an engine must know to go on with this pod."""
        relay = self.relay
        counters = (
            relay.counters()
            if relay
            else {"tty": [], "streams": {}, "taken": 0, "received": 0, "signals": 0, "size": [0, 0]}
        )
        key = relay.pty.key if relay and relay.pty and relay.pty.slave >= 0 else ""
        return {
            "phase": self.phase,
            "root": self.root,
            "stopped": self.stopped,
            "status": self.status,
            "key": key,
            "userns": self.hardening.userns,
            **counters,
        }

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
            self._call(frames.unpack(payload))
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
            self._apply_signals()
        elif kind == frames.K_RESIZE and relay.pty and self.phase != "frozen":
            relay.pty.resize(*frames.SIZE.unpack(payload))

    def _apply_signals(self) -> None:
        if self.phase != "running" or self.relay is None:
            return
        waiting, self.signals = self.signals, []
        for seq, number in waiting:
            if seq == self.relay.signals_taken + 1:
                self.relay.signals_taken = seq
                self._signal(number)

    def _signal(self, number: int) -> None:
        try:
            if number == _KILL:
                self._kill_all()
            else:
                os.killpg(os.getpgid(self.root), number)
        except (ProcessLookupError, PermissionError):
            return  # it ended

    # -- calls

    def _call(self, call: dict[str, Any]) -> None:
        needed = {"start": "empty", "dump": "running", "undo": "frozen", "restore": "empty", "resume": "restored"}
        try:
            operation = call["op"]
            if needed.get(operation) != self.phase:
                raise _Refused(f"cannot {operation}: the pod is {self.phase}")
            getattr(self, "_" + operation)(call)
        except _Refused as refusal:
            self._answer(call, ok=False, text=refusal.text, hint=refusal.hint, log="")
        except OSError as error:
            subject = f" {error.filename}" if error.filename else ""
            self._answer(call, ok=False, text=f"{error.strerror}{subject}", hint="", log="")
        except termios.error as error:
            self._answer(call, ok=False, text=f"terminal: {error}", hint="", log="")

    def _answer(self, call: dict[str, Any], ok: bool, **more: Any) -> None:
        if self.link:
            if not self.link.ready:
                self.link.greet(self.state())  # it came while criu ran, and knows nothing of this call
            else:
                self.link.reply({"id": call["id"], "ok": ok, "state": self.state(), **more})

    def _start(self, call: dict[str, Any]) -> None:
        run = call["run"]
        relay = Relay(run["tty"])
        if relay.pty:
            relay.pty.resize(run["rows"], run["cols"])
            relay.pty.apply(run["term"])
        pid, number, step, subject = podexec.start_job(run, relay, self.hardening)
        relay.close_job_ends()
        if not pid:
            relay.close()
            self._answer(call, ok=False, text="", hint="", log="", errno=number, step=step, subject=subject)
            return
        self.relay, self.root, self.phase = relay, pid, "running"
        self._answer(call, ok=True)

    def _dump(self, call: dict[str, Any]) -> None:
        found = podtree.tasks()
        if left := podtree.strays(found, self.root):
            names = ", ".join(f"{task.pid} ({task.name})" for task in left[:3])
            raise _Refused(
                f"process {names} left the job's tree (a daemon)",
                "CRIU moves only the job and its descendants; end that process or keep the job here.",
            )
        if not any(task.pid == self.root and task.state not in "ZX" for task in found):
            raise _Refused("the job has just ended")
        images = self.host.open(call["images"], os.O_RDONLY | os.O_DIRECTORY)
        self.asleep = podtree.stopped_by_user(found)
        self._fetch_kdat()
        self.criu = _Criu(call, podexec.start_criu(call["argv"], images, None), images)
        self.criu.saved = {"tasks": len(found)}
        self.phase = "dumping"

    def _restore(self, call: dict[str, Any]) -> None:
        images = self.host.open(call["images"], os.O_RDONLY | os.O_DIRECTORY)
        try:
            saved = podimages.read_relay(images)
            self._fetch_kdat()
            podtree.keep_clear_of(saved["pids"])
            relay = Relay.load(saved["relay"])
        except (ValueError, KeyError, TypeError) as error:
            os.close(images)
            raise _Refused(f"the relay state is damaged: {error}") from error
        self.criu = _Criu(call, podexec.start_criu(call["argv"], images, relay), images)
        self.criu.saved = saved
        self.relay = relay
        self.phase = "restoring"

    def _undo(self, call: dict[str, Any]) -> None:
        self._go_on(call)

    def _resume(self, call: dict[str, Any]) -> None:
        self._go_on(call)

    def _go_on(self, call: dict[str, Any]) -> None:
        if self.relay:
            self.relay.input.push_back(self.relay.pty)
        podtree.go_on(self.asleep)
        self.phase = "running"
        self._answer(call, ok=True)
        self._apply_signals()

    # -- children

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if self.criu and pid == self.criu.pid:
                if not (os.WIFSTOPPED(status) or os.WIFCONTINUED(status)):
                    self._criu_done(status)
            elif pid == self.root:
                self._root_changed(status)
        if self.phase == "ended" and self.relay and self.relay.pty:
            self.relay.pty.close_slave()

    def _root_changed(self, status: int) -> None:
        if os.WIFSTOPPED(status):
            if self.phase == "running":
                self.stopped = os.WSTOPSIG(status)
        elif os.WIFCONTINUED(status):
            if self.phase == "running":
                self.stopped = 0
        elif self.phase in ("running", "dumping"):
            self.status = os.waitstatus_to_exitcode(status)
            self._end()
        elif self.phase in ("frozen", "restored"):
            os._exit(3)  # a stopped copy was killed: that is no end of the job, only of this pod

    def _end(self) -> None:
        """The root ended: the rest of the pod goes with it, then the last output is read to its end."""
        self.stopped = 0
        if self.phase == "running":
            self.phase = "ended"
        self._kill_all()

    def _kill_all(self) -> None:
        try:
            os.kill(-1, _KILL)  # everything in the pod but PID 1
        except ProcessLookupError:
            return

    def _criu_done(self, status: int) -> None:
        work, self.criu = self.criu, None
        if work is None:
            return
        took = time.monotonic() - work.started
        failed = status != 0
        try:
            if self.phase == "dumping":
                self._dumped(work, failed, took)
            else:
                self._restored(work, failed, took)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._answer(work.call, ok=False, text=f"after criu: {error}", hint="", log="")
            if self.phase in ("frozen", "restored"):
                raise
        finally:
            os.close(work.images)
        if self.kdat:
            self._share_kdat()

    def _criu_failed(self, work: _Criu, log: str, text: str) -> None:
        if work.expired:
            text = f"criu took longer than {work.call['timeout']:g} s"
        self._answer(work.call, ok=False, text=text, hint="", log=podimages.log_of(work.images, log))

    def _dumped(self, work: _Criu, failed: bool, took: float) -> None:
        if self.status is not None:
            self.phase = "ended"
            self._answer(work.call, ok=False, text="the job has just ended", hint="", log="")
            return
        if failed or self.relay is None:
            self.phase = "running"
            self._criu_failed(work, "dump.log", "criu could not dump the job")
            self._apply_signals()
            return
        began = time.monotonic()
        self.phase = "frozen"
        try:
            bytes_total = self._cut(work)
        except (OSError, ValueError, termios.error) as error:
            self.relay.input.push_back(self.relay.pty)
            podtree.go_on(self.asleep)
            self.phase = "running"
            self._answer(work.call, ok=False, text=f"cannot write the relay state: {error}", hint="", log="")
            return
        cut_s = _micro(time.monotonic() - began)
        self._answer(work.call, ok=True, criu_s=_micro(took), cut_s=cut_s, bytes=bytes_total, **work.saved)

    def _cut(self, work: _Criu) -> int:
        """Move what is between the job and us into the relay state; all of the job is stopped."""
        relay = self.relay
        if relay is None:
            raise ValueError("no job")
        relay.drain()
        relay.input.pull_back(relay.pty)
        found = podtree.tasks()
        podimages.free_terminal(work.images)
        podimages.write_relay(
            work.images,
            {
                "version": 1,
                "root": self.root,
                "pids": podtree.numbers(found),
                "asleep": self.asleep,
                "stopped": self.stopped,
                "relay": relay.save(),
            },
        )
        return podimages.sum_of_images(work.images)

    def _restored(self, work: _Criu, failed: bool, took: float) -> None:
        relay, saved = self.relay, work.saved
        mighty = podtree.too_mighty(podtree.tasks(), os.getuid()) if self.hardening.userns and not failed else []
        if failed or mighty or relay is None:
            self.phase = "empty"
            self._kill_all()
            if relay:
                relay.close()
                self.relay = None
            if mighty:
                text = f"the image gives rights to {mighty[0]} that no job has: it was tampered with"
                self._answer(work.call, ok=False, text=text, hint="", log="")
            else:
                self._criu_failed(work, "restore.log", "criu could not restore the job")
            return
        relay.close_job_ends()
        self.root, self.asleep, self.stopped = saved["root"], saved["asleep"], saved["stopped"]
        if relay.pty and saved["relay"]["pty"]:
            relay.pty.apply(saved["relay"]["pty"][1])
            relay.pty.set_foreground(saved["relay"]["pty"][4])
        self.phase = "restored"
        self._answer(work.call, ok=True, criu_s=_micro(took))

    def _fetch_kdat(self) -> None:
        """Take what an earlier pod's criu found out, if this pod's /run has it not yet."""
        if self.kdat and not os.path.exists(_KDAT) and (data := self.host.read(self.kdat)):
            with open(_KDAT, "wb") as file:
                file.write(data)

    def _share_kdat(self) -> None:
        """Give the next pods what criu found out about this kernel: 55 ms for each of its runs."""
        if not self.host.read(self.kdat):
            try:
                with open(_KDAT, "rb") as file:
                    self.host.replace(self.kdat, file.read())
            except OSError:
                return  # criu made none
        self.kdat = ""


def _micro(seconds: float) -> int:
    return int(seconds * 1e6)


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
