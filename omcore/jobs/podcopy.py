"""The copy of a job in a pod: start it, stop it, dump it, restore it, see its end.  Runs in the pod's PID 1.

Phases: empty -> running (start) -> frozen (dump) -> running (undo); empty -> restored (restore) -> running (resume);
running -> ended.  While criu runs the phase is "dumping" or "restoring".  A stopped copy goes on only on an engine's
word, never by itself.
"""

from __future__ import annotations

import os
import termios
import time

from . import podexec, podimages, podtree
from .podinit import Hardening, Host
from .podrelay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KILL = 9
_KDAT = "/run/criu.kdat"
_NEEDED = {"start": "empty", "dump": "running", "undo": "frozen", "restore": "empty", "resume": "restored"}


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


class Copy:
    """One job's processes and what is known of them; `answer` tells the engine how a call went."""

    def __init__(self, host: Host, hardening: Hardening, kdat: str) -> None:
        self.host = host
        self.hardening = hardening
        self.kdat = kdat
        self.phase = "empty"
        self.root = 0
        self.stopped = 0  # signal that stopped the root; 0: it runs
        self.status: int | None = None
        self.relay: Relay | None = None
        self.criu: _Criu | None = None
        self.asleep: list[int] = []  # tasks that the user had stopped before the cut
        self.signals: list[tuple[int, int]] = []  # numbered signals that wait for the end of a dump

    def _answer(self, call: dict[str, Any], ok: bool, **more: Any) -> None:
        raise NotImplementedError

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

    # -- signals

    def apply_signals(self) -> None:
        """Send the waiting signals, each once and in order; none unless the job runs."""
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

    def call(self, call: dict[str, Any]) -> None:
        """Do what an engine asks, or say why not; a dump and a restore are answered when criu has ended."""
        try:
            operation = call["op"]
            if _NEEDED.get(operation) != self.phase:
                raise _Refused(f"cannot {operation}: the pod is {self.phase}")
            getattr(self, "_" + operation)(call)
        except _Refused as refusal:
            self._answer(call, ok=False, text=refusal.text, hint=refusal.hint, log="")
        except OSError as error:
            subject = f" {error.filename}" if error.filename else ""
            self._answer(call, ok=False, text=f"{error.strerror}{subject}", hint="", log="")
        except termios.error as error:
            self._answer(call, ok=False, text=f"terminal: {error}", hint="", log="")

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
        self.apply_signals()

    # -- children

    def reap(self) -> None:
        """Take note of every child that ended, stopped or goes on."""
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
        except (OSError, ValueError, KeyError, TypeError, termios.error) as error:
            if self.phase != "restoring":
                raise
            self._clear()
            self._answer(work.call, ok=False, text=f"after criu: {error}", hint="", log="")
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
            self.apply_signals()
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
            self._clear()
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

    def _clear(self) -> None:
        """A restore came to nothing: the pod is empty again."""
        self._kill_all()
        if self.relay:
            self.relay.close()
        self.relay, self.root, self.phase = None, 0, "empty"

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
