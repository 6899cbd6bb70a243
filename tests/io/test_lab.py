"""The lab: real namespaces, a trivial program in place of the engine; nothing may be left of it, whatever happens."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

import omcore
from omcore import lab
from omcore.errors import LabError
from omcore.lab import LabStatus, cgroups, record

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SECONDS = 60.0
ENGINE = ("sleep", "infinity")
NOBODY = 65534


def new_name() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


def omview(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-P", "-m", "omview", *words],
        **{"capture_output": True, "text": True, "timeout": SECONDS, "check": False, **options},
    )


def run_in(name: str, node: str, *command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return omview("lab", "exec", "--name", name, node, "--", *command, **options)


def up(name: str, n: int = 1, cpu: float | None = None, engine: tuple[str, ...] = ENGINE) -> LabStatus:
    try:
        return lab.up(name, n, cpu=cpu, engine_command=engine)
    except LabError as error:
        if "user namespaces" in error.text or "iproute2" in error.hint:
            pytest.skip(f"{error.text}: {error.hint}")
        raise


@pytest.fixture
def name() -> Iterator[str]:
    chosen = new_name()
    yield chosen
    lab.down(chosen)


@pytest.fixture(scope="module")
def two() -> Iterator[LabStatus]:
    """A lab of two hosts that the tests only look at."""
    status = up(new_name(), 2)
    yield status
    lab.down(status.name)


def processes(status: LabStatus) -> list[int]:
    hosts = [pid for host in status.hosts for pid in (host.pid, host.engine_pid)]
    return [status.keeper, status.holder, *hosts]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(*descriptors: int) -> None:
    for fd in descriptors:
        assert select.select([fd], [], [], SECONDS)[0]
        os.close(fd)


class Traces:
    """What a lab could leave on this machine, noted while it is up."""

    def __init__(self, status: LabStatus) -> None:
        self.status = status
        self.pids = processes(status)
        assert all(lives(pid) for pid in self.pids)
        self.groups = [path for host in status.hosts for path in host.cgroup]
        assert all(os.path.isdir(path) for path in self.groups)
        kinds = ("net", "pid", "mnt", "uts", "ipc")
        self.namespaces = {os.readlink(f"/proc/{host.pid}/ns/{kind}") for host in status.hosts for kind in kinds}
        assert len(self.namespaces) == len(kinds) * len(status.hosts)
        self.directory = record.lab_directory(status.name)
        assert self.directory.is_dir()

    def assert_gone(self) -> None:
        assert [pid for pid in self.pids if lives(pid)] == []
        assert [path for path in (*self.groups, *self.status.leftovers) if os.path.exists(path)] == []
        assert not self.directory.exists()
        assert f"omview-lab-{self.status.name}" not in Path("/proc/self/mountinfo").read_text()
        assert str(self.directory) not in Path("/proc/self/mountinfo").read_text()
        assert self.namespaces & all_namespaces() == set()
        assert {"switch", "port1", "eth0@"} & set(os.listdir("/sys/class/net")) == set()


def all_namespaces() -> set[str]:
    found = set()
    for process in os.listdir("/proc"):
        if process.isdecimal():
            with suppress(OSError):
                found |= {os.readlink(f"/proc/{process}/ns/{kind}") for kind in os.listdir(f"/proc/{process}/ns")}
    return found


def test_hosts_have_names_and_addresses_of_their_own(two: LabStatus) -> None:
    for host in two.hosts:
        done = run_in(two.name, host.name, "sh", "-c", "hostname; echo $HOSTNAME; ip -4 -o address show eth0")
        lines = done.stdout.splitlines()
        assert lines[:2] == [host.name, host.name], done.stderr
        assert f"inet {host.address}/24" in lines[2]


def test_hosts_reach_each_other_over_tcp(two: LabStatus) -> None:
    server = (
        "import os, socket; s = socket.create_server(('10.77.0.1', 4999)); print('ready', flush=True); "
        "c, who = s.accept(); print(who[0]); c.sendall(b'hello')"
    )
    caller = "import socket; print(socket.create_connection(('10.77.0.1', 4999), 20).recv(5).decode())"
    words = [sys.executable, "-P", "-m", "omview", "lab", "exec", "--name", two.name, "node1", "--"]
    with subprocess.Popen([*words, "python3", "-c", server], stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == "ready\n"
        assert run_in(two.name, "node2", "python3", "-c", caller).stdout == "hello\n"
        assert listening.stdout.readline() == "10.77.0.2\n"


def test_nothing_of_the_machine_s_network_is_seen_or_changed(two: LabStatus) -> None:
    done = run_in(two.name, "node1", "ip", "-o", "link")
    assert re.findall(r"^\d+: ([a-z0-9]+)", done.stdout, re.M) == ["lo", "eth0"]
    assert not {"switch", "port1", "port2"} & set(os.listdir("/sys/class/net"))


def test_hosts_see_only_their_own_processes(two: LabStatus) -> None:
    done = run_in(two.name, "node1", "sh", "-c", "cat /proc/1/comm; ls /proc | grep -c '^[0-9]'")
    init, count = done.stdout.split()
    assert init == "omview-host"
    assert int(count) <= 6  # init, engine, sh, ls, grep


def test_each_host_has_its_own_tmp_run_and_shm(two: LabStatus) -> None:
    mark = f"omview-{uuid.uuid4().hex}"
    places = [f"{place}/{mark}" for place in ("/tmp", "/run", "/dev/shm")]
    assert run_in(two.name, "node1", "touch", *places).returncode == 0
    assert run_in(two.name, "node1", "test", "-e", places[0]).returncode == 0
    for place in places:
        assert run_in(two.name, "node2", "test", "-e", place).returncode == 1
        assert not os.path.exists(place)


def test_state_lies_in_the_host_and_home_stays(two: LabStatus) -> None:
    done = run_in(two.name, "node1", "sh", "-c", "echo $XDG_STATE_HOME $XDG_RUNTIME_DIR $HOME; pwd", cwd="/usr")
    first, cwd = done.stdout.splitlines()
    assert first == f"/run/omview-lab/state /run/omview-lab/run {os.environ['HOME']}"
    assert cwd == "/usr"


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_status_is_the_command_s_own(two: LabStatus, code: int) -> None:
    assert run_in(two.name, "2", "sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT])
def test_death_by_signal_is_the_command_s_own(two: LabStatus, number: int) -> None:
    assert run_in(two.name, "node1", "sh", "-c", f"kill -{int(number)} $$").returncode == -number


def test_a_signal_sent_to_exec_reaches_the_command(two: LabStatus) -> None:
    words = [sys.executable, "-P", "-m", "omview", "lab", "exec", "--name", two.name, "node1", "--"]
    script = "trap 'echo got it; exit 9' USR1; echo ready; while :; do read -r line; done"
    with subprocess.Popen(
        [*words, "bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGUSR1)
        assert running.stdout.readline() == "got it\n"
        assert running.wait(SECONDS) == 9


def test_input_and_output_pass_through_untouched(two: LabStatus) -> None:
    text = "".join(f"line {number}\n" for number in range(20000))
    assert run_in(two.name, "node1", "cat", input=text).stdout == text


class Terminal:
    """A command on a terminal of its own; `expect` waits for its words."""

    def __init__(self, *words: str) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execvp(words[0], words)
        self.seen = b""

    def expect(self, words: bytes) -> None:
        while words not in self.seen:
            assert select.select([self.master], [], [], SECONDS)[0], self.seen
            try:
                data = os.read(self.master, 4096)
            except OSError:
                data = b""
            assert data, self.seen
            self.seen += data
        self.seen = self.seen.partition(words)[2]

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> int:
        with suppress(OSError):
            while os.read(self.master, 4096):
                pass
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.master)
        return status


def exec_words(status: LabStatus, *command: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "omview", "lab", "exec", "--name", status.name, "node1", "--", *command)


def test_the_terminal_is_the_command_s_own(two: LabStatus) -> None:
    terminal = Terminal(*exec_words(two, "bash", "--norc", "--noprofile"))
    terminal.type(b"PS1=; stty -echo; echo ready-$((1+1))\n")
    terminal.expect(b"ready-2")
    terminal.type(b"tty -s && case $- in *m*) echo job control;; esac; hostname\n")
    terminal.expect(b"job control\r\nnode1\r\n")
    terminal.type(b"sh -c 'echo started; exec sleep 100'\n")
    terminal.expect(b"started\r\n")
    terminal.type(b"\x03")
    terminal.type(b"echo broken-$?\n")
    terminal.expect(b"broken-130")
    terminal.type(b"exit 5\n")
    assert terminal.end() == 5


def test_control_c_ends_the_command_and_exec_alike(two: LabStatus) -> None:
    terminal = Terminal(*exec_words(two, "sh", "-c", "echo ready; exec cat"))
    terminal.expect(b"ready")
    terminal.type(b"\x03")
    assert terminal.end() == -signal.SIGINT


def test_control_z_stops_and_fg_goes_on(two: LabStatus) -> None:
    shell = Terminal("bash", "--norc", "--noprofile", "-i")
    shell.type(b"PS1='$ '; " + " ".join(exec_words(two, "sh", "-c", "'echo rea''dy; exec cat'")).encode() + b"\n")
    shell.expect(b"ready\r\n")
    shell.type(b"\x1a")
    shell.expect(b"Stopped")
    shell.expect(b"$ ")
    shell.type(b"fg\n")
    shell.expect(b"exec cat'\r\n")  # what is typed before, the shell may take for itself
    shell.type(b"hello again\n")
    shell.expect(b"hello again\r\nhello again")
    shell.type(b"\x04")
    shell.type(b"exit $((40+2))\n")
    assert shell.end() == 42


def test_unknown_host_command_and_lab_are_said_in_words(two: LabStatus) -> None:
    done = run_in(two.name, "node9", "true")
    assert done.returncode == 1
    assert "node9" in done.stderr
    assert "node1, node2" in done.stderr
    done = run_in(two.name, "node1", "no-such-program")
    assert done.returncode == 127
    assert done.stderr.count("\n") == 1
    done = run_in("no-such-lab", "node1", "true")
    assert done.returncode == 1
    assert "omview lab up" in done.stderr


def test_status_as_json(two: LabStatus) -> None:
    found = json.loads(omview("lab", "status", "--json", "--name", two.name).stdout)
    assert found["name"] == two.name
    assert found["state"] == "up"
    assert [host["name"] for host in found["hosts"]] == ["node1", "node2"]
    assert all(host["engine_alive"] and lives(host["engine_pid"]) for host in found["hosts"])
    assert {"number", "address", "pid", "cpu", "cgroup"} <= set(found["hosts"][0])


def test_down_leaves_nothing(name: str) -> None:
    traces = Traces(up(name, 3, cpu=0.5))
    assert lab.down(name)
    traces.assert_gone()
    assert not lab.down(name)
    with pytest.raises(LabError, match="there is no lab"):
        lab.status(name)


def test_a_killed_holder_leaves_nothing(name: str) -> None:
    traces = Traces(up(name, 2, cpu=0.5))
    keeper = os.pidfd_open(traces.status.keeper)
    os.kill(traces.status.holder, signal.SIGKILL)
    wait_for_end(keeper)
    traces.assert_gone()


def test_a_killed_keeper_leaves_nothing(name: str) -> None:
    traces = Traces(up(name, 2, cpu=0.5))
    holder = os.pidfd_open(traces.status.holder)
    os.kill(traces.status.keeper, signal.SIGKILL)
    wait_for_end(holder)
    traces.assert_gone()


def test_what_keeper_and_holder_killed_together_leave_the_next_command_removes(name: str) -> None:
    traces = Traces(up(name, 2, cpu=0.5))
    both = os.pidfd_open(traces.status.keeper), os.pidfd_open(traces.status.holder)
    os.kill(traces.status.keeper, signal.SIGSTOP)  # so that neither can do the other's work
    os.kill(traces.status.holder, signal.SIGKILL)
    os.kill(traces.status.keeper, signal.SIGKILL)
    wait_for_end(*both)
    with pytest.raises(LabError, match="there is no lab"):
        lab.status(name)
    traces.assert_gone()


def test_control_c_during_up_leaves_nothing(name: str) -> None:
    engine = "sh -c 'exec sleep infinity'"
    terminal = Terminal(
        sys.executable, "-P", "-m", "omview", "lab", "up", "--name", name, "-n", "9", "--engine-command", engine
    )
    terminal.expect(b"making 9 hosts")
    terminal.type(b"\x03")
    assert terminal.end() == 130
    assert not record.lab_directory(name).exists()
    assert not [root for tree in cgroups.hierarchies() for root in groups_of(tree.upwards, name)]


def groups_of(places: tuple[str, ...], name: str) -> list[str]:
    return [entry for place in places for entry in os.listdir(place) if entry.startswith(f"omview-lab-{name}-")]


def test_an_engine_that_cannot_start_is_said_and_leaves_nothing(name: str) -> None:
    with pytest.raises(LabError, match="no-such-engine: No such file"):
        lab.up(name, 2, engine_command=["no-such-engine"])
    assert not record.lab_directory(name).exists()


def test_an_engine_that_ended_shows_in_the_status(name: str) -> None:
    lab.up(name, 1, engine_command=["sh", "-c", "read -r line < /run/gate; exit 3"])
    # the engine fails at once (there is no gate); its init says so to the keeper, which writes it down
    host = lab.status(name).hosts[0]
    for _ in range(10_000):
        if host.engine_exit is not None:
            break
        select.select([], [], [], 0.005)
        host = lab.status(name).hosts[0]
    assert host.engine_exit == 3
    assert not host.engine_alive


def test_two_labs_at_once_do_not_meet(two: LabStatus, name: str) -> None:
    traces = Traces(up(name, 1))
    assert traces.status.hosts[0].address == two.hosts[0].address
    again = omview("lab", "up", "--name", name, "--engine-command", "true")
    assert again.returncode == 1
    assert "already up" in again.stderr
    lab.down(name)
    traces.assert_gone()
    assert all(lives(pid) for pid in processes(two))


def test_the_cpu_share_holds_for_the_engine_and_not_for_a_visitor(name: str) -> None:
    burn = "import time; e = time.monotonic() + 1\nwhile time.monotonic() < e: pass\nprint(time.process_time())"
    status = up(name, 1, cpu=0.2, engine=(sys.executable, "-c", burn))
    if status.cpu is None:
        pytest.skip(status.note)
    waiting = "while [ ! -s /run/omview-lab/engine.log ]; do sleep 0.05; done; cat /run/omview-lab/engine.log"
    assert float(run_in(name, "node1", "sh", "-c", waiting).stdout) < 0.4
    groups = run_in(name, "node1", "cat", "/proc/self/cgroup").stdout
    assert "omview-lab" not in groups


def test_hosts_still_see_what_lies_below_tmp_when_it_is_needed(name: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder, "mark").touch()
        words = ("lab", "up", "--name", name, "-n", "1", "--engine-command", "sleep infinity", "--cpu", "0")
        assert omview(*words, cwd=folder).returncode == 0
        assert run_in(name, "node1", "sh", "-c", "pwd; ls", cwd=folder).stdout.split() == [folder, "mark"]
        lab.down(name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-n", "0"), "0 hosts"),
        (("-n", "101"), "101 hosts"),
        (("--cpu", "0.001"), "0.001 cores"),
        (("--name", "../x"), "no name for a lab"),
        (("--memory", "1"), "more memory"),
    ],
)
def test_nonsense_is_refused_before_anything_is_made(words: tuple[str, ...], said: str) -> None:
    done = omview("lab", "up", "--engine-command", "true", *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert "hint:" in done.stderr


def test_an_ordinary_user_has_labs_too() -> None:
    if os.geteuid() != 0:
        pytest.skip("all of these tests run as an ordinary user already")
    home = Path(tempfile.mkdtemp(prefix="omview-nobody-", dir="/tmp"))
    try:
        os.chown(home, NOBODY, NOBODY)
        _ordinary_lab(home)
    finally:
        shutil.rmtree(home)


def _ordinary_lab(home: Path) -> None:
    site = Path(click.__file__).parents[1]
    code = Path(omcore.__file__).parents[1]
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "PYTHONPATH": f"{code}:{site}",
        "LANG": "C.UTF-8",
    }

    def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            env=env,
            cwd=home,
            user=NOBODY,
            group=NOBODY,
            extra_groups=(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def usable(python: str) -> bool:
        with suppress(OSError):
            return as_nobody(python, "-c", "import click, omview.cli.lab").returncode == 0
        return False

    python = next((one for one in (sys.executable, "/usr/bin/python3") if usable(one)), None)
    if python is None:
        pytest.skip("an ordinary user cannot read this Python, or the project")
    begin = (python, "-m", "omview", "lab")
    made = as_nobody(*begin, "up", "-n", "2", "--engine-command", "sleep infinity")
    if "user namespaces" in made.stderr:
        pytest.skip(made.stderr)
    assert made.returncode == 0, made.stderr
    try:
        found = json.loads(as_nobody(*begin, "status", "--json").stdout)
        assert found["rootless"]
        script = "id -u; hostname; grep CapEff /proc/self/status; unshare -Urmpf --mount-proc hostname"
        inside = as_nobody(*begin, "exec", "node2", "--", "sh", "-c", script)
        assert inside.stdout.split() == [str(NOBODY), "node2", "CapEff:", "0" * 16, "node2"], inside.stderr
        assert as_nobody(*begin, "exec", "node1", "--", "sh", "-c", "exit 7").returncode == 7
    finally:
        assert as_nobody(*begin, "down").returncode == 0
    pids = [found["holder"], *(host[key] for host in found["hosts"] for key in ("pid", "engine_pid"))]
    assert [pid for pid in pids if lives(pid)] == []
    assert list(home.glob("omview-lab*")) == []
