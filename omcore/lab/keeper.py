"""The keeper: parent of a lab's PID 1, outside of the lab; when that ends, for whatever reason, it cleans up.

It makes the control groups and the outer namespaces, starts the holder, hears what the hosts report, keeps the
record up to date, and at the end removes groups and record.  Should the keeper itself be killed, the holder sees
its channel close, ends every host and cleans up in its place.  Kill both, and the next `omview lab` command does.

    caller (up) --control socket--> keeper --channel--> holder = PID 1 of the lab, its netns is the switch
                                                          +-- init of node1 -- engine, jobs
                                                          +-- init of node2 -- ...
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from omcore.lab import cgroups, record
from omcore.lab import namespaces as ns
from omcore.lab.cluster import Plan, host_address, host_name
from omcore.lab.holder import hold
from omcore.lab.plumbing import PROCESS_NAME, receive, start_time
from omcore.lab.record import HostStatus, LabStatus


class Keeper:
    """One lab's keeper; `run` returns when nothing of the lab is left."""

    def __init__(self, plan: Plan, control: socket.socket) -> None:
        self._plan = plan
        self._directory = Path(plan.directory)
        self._control = control
        self._pid_of_holder = 0
        self._ending = False
        self._running: set[int] = set()  # numbers of hosts whose engine was started
        self._status = LabStatus(
            name=plan.name,
            hosts=tuple(HostStatus(host_name(n), n, host_address(n)) for n in plan.numbers),
            keeper=os.getpid(),
            uid=plan.uid,
            rootless=plan.rootless,
            engine_command=plan.command,
            created_at=time.time(),
        )

    def run(self) -> None:
        """Bring the lab up, watch it, clean up after it."""
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        try:
            self._watch(self._start())
        except OSError as error:
            self._tell_error(error)
        finally:
            self._end()
            if self._pid_of_holder:
                os.waitpid(self._pid_of_holder, 0)  # comes back when every process of the lab is gone
            record.sweep(self._directory)

    def _start(self) -> socket.socket:
        """Groups, namespaces, holder; returns our end of the hosts' channel."""
        plan = self._plan
        label = f"omview-lab-{plan.name}-{os.getpid()}-{os.urandom(3).hex()}"
        names = [host_name(number) for number in plan.numbers]
        groups = cgroups.make(
            cgroups.hierarchies(), label, names, plan.cpu, plan.memory_bytes, self._announce_leftovers
        )
        self._update(
            hosts=tuple(
                replace(host, cgroup=paths, cpu=plan.cpu if groups.cpu_limited else None)
                for host, paths in zip(self._status.hosts, groups.by_host or ((),) * plan.hosts, strict=True)
            ),
            cpu=plan.cpu if groups.cpu_limited else None,
            note=groups.note,
        )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # the kernel tells pids in our own numbers
        if plan.rootless:
            ns.enter_user_namespace(0, 0)
        ns.unshare(ns.CLONE_NEWPID)
        self._pid_of_holder = os.fork()
        if self._pid_of_holder == 0:
            ours.close()
            self._control.close()
            hold(plan, self._status, theirs)
        theirs.close()
        self._update(holder=self._pid_of_holder)
        if self._ending:  # we were told to stop while there was nobody to be stopped
            self._end()
        return ours

    def _announce_leftovers(self, paths: Any) -> None:
        self._update(leftovers=tuple(paths))

    def _watch(self, channel: socket.socket) -> None:
        """Hear hosts and caller until the holder is gone."""
        holder = os.pidfd_open(self._pid_of_holder)
        with selectors.DefaultSelector() as selector:
            selector.register(channel, selectors.EVENT_READ)
            selector.register(holder, selectors.EVENT_READ)
            selector.register(self._control, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == holder:
                        os.close(holder)
                        return
                    if key.fileobj is channel:
                        if not self._hear(channel):
                            selector.unregister(channel)
                    else:  # nothing but the end of file can come from the caller: it gave up, or was killed
                        selector.unregister(key.fileobj)
                        if self._status.state == "starting":
                            self._end()

    def _hear(self, channel: socket.socket) -> bool:
        data, pid = receive(channel)
        if not data:
            return False
        message = json.loads(data)
        kind, number = message["kind"], message.get("number", 0)
        if kind == "error":
            self._tell(message)
            self._end()
        elif kind == "init":
            self._update_host(number, pid=pid, started=start_time(pid))
        elif kind == "engine":
            self._update_host(number, engine_pid=pid, engine_alive=True)
        elif kind == "running":
            self._running.add(number)
            if len(self._running) == self._plan.hosts:
                self._update(state="up")
                self._tell({"kind": "up"})
        elif kind == "engine-ended":
            self._update_host(number, engine_alive=False, engine_exit=message["status"])
        elif kind == "host-ended":
            self._update_host(number, pid=0, engine_alive=False)
            if self._status.state == "starting":
                self._tell({"kind": "error", "text": f"{host_name(number)} ended while it was being made"})
                self._end()
        return True

    def _update_host(self, number: int, **changes: Any) -> None:
        hosts = tuple(replace(host, **changes) if host.number == number else host for host in self._status.hosts)
        self._update(hosts=hosts)

    def _update(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)
        record.write(self._directory, self._status)

    def _end(self) -> None:
        """End every process of the lab: the kernel does it when PID 1 goes."""
        self._ending = True
        if self._pid_of_holder:
            with suppress(ProcessLookupError):
                os.kill(self._pid_of_holder, signal.SIGKILL)

    def _tell_error(self, error: OSError) -> None:
        if self._plan.rootless and not self._pid_of_holder:
            reason, hint = ns.why_no_user_namespaces()
            text = f"user namespaces are not allowed here ({error.strerror}): {reason}"
        else:
            text, hint = f"{error.filename or 'the kernel'}: {error.strerror}", ""
        self._tell({"kind": "error", "text": text, "hint": hint})

    def _tell(self, message: dict[str, object]) -> None:
        with suppress(OSError):  # nobody listens any more
            self._control.sendall(json.dumps(message).encode() + b"\n")


def main() -> None:
    """`python -m omcore.lab.keeper CONTROL_FD LOCK_FD`: the plan comes as one line through the control socket."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for fd in sys.argv[1:]:
        os.set_inheritable(int(fd), False)  # the lock must not outlive the lab in some stray program
    if os.fork():
        os._exit(0)  # the keeper belongs to nobody, so that nobody has to wait for it
    os.setsid()
    os.chdir("/")
    ns.name_process(PROCESS_NAME)
    with control.makefile("rb") as lines:
        line = lines.readline()
    if not line:
        return  # the caller gave up at once
    plan = Plan.from_json(json.loads(line))
    ns.name_process(PROCESS_NAME, plan.name)
    Keeper(plan, control).run()
    os._exit(0)  # nothing to tidy up in the interpreter, and somebody waits for our end


if __name__ == "__main__":
    main()
