"""Real processes of every kind that can or cannot move."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from omcore.checkpoint.findings import Held, Task
from omcore.checkpoint.preflight import Findings, Needs, check_needs, examine, judge, needs_of
from omcore.sensors.proc import tree
from omcore.types import Movable

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces as root")

Start = Callable[..., int]
WAIT = "print(os.getpid(), flush=True); signal.pause()"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program, wait until it has said that it is ready, give its PID; all ends with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def launch(code: str, *prefix: str) -> int:
        source = "import os,sys,socket,signal,ctypes,mmap,threading,time\n" + code
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip(), "it did not get ready"
        return process.pid

    yield launch
    for process in running:
        for pid in reversed(tree(process.pid)):
            os.kill(pid, signal.SIGKILL)
    for process in running:  # only now: a traced process ends after its tracer
        process.communicate()


def codes(findings: Findings, fatal: bool = True) -> set[str]:
    return {check.code for check in judge(findings)[1] if check.fatal == fatal}


def text(findings: Findings, code: str) -> str:
    return next(check.text for check in judge(findings)[1] if check.code == code)


def test_plain_python_can_move(start: Start, tmp_path: Path) -> None:
    pid = start(f"os.chdir({str(tmp_path)!r}); threading.Thread(target=signal.pause).start();" + WAIT)
    found = examine(pid)
    answer, checks = judge(found)
    assert answer is Movable.YES, checks
    assert [check.code for check in checks] == ["tree"]
    assert found.threads == 2
    assert found.rss_bytes > 1_000_000
    assert found.directories == [str(tmp_path)]
    libc = next(mapped for mapped in found.mapped if "/libc.so" in mapped.path or "ld-musl" in mapped.path)
    assert libc.build_id
    assert libc.size == os.stat(libc.path).st_size


def test_examining_a_small_program_is_instant(start: Start) -> None:
    pid = start(WAIT)
    examine(pid)
    began = time.process_time()
    examine(pid)
    assert time.process_time() - began < 0.020


def test_a_pipeline_is_one_tree(start: Start) -> None:
    pid = start(
        "import subprocess; p = subprocess.Popen(['sh', '-c', 'echo up; sleep 60 | cat | cat'], stdout=-1);"
        "p.stdout.readline(); print('ok', flush=True); signal.pause()"
    )
    until = time.monotonic() + 10
    while names(pid) != ["cat", "cat", "sh", "sleep"]:  # each is a "sh" until it has exec'd
        assert time.monotonic() < until, names(pid)
    assert judge(examine(pid))[0] is Movable.YES


def names(pid: int) -> list[str]:
    return sorted(task.name for task in examine(pid).tasks if task.pid != pid)


def await_tasks(pid: int, count: int) -> None:
    until = time.monotonic() + 10
    while len(examine(pid).tasks) < count:
        assert time.monotonic() < until


def test_a_process_that_is_gone() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    answer, checks = judge(examine(process.pid))
    assert answer is Movable.NO
    assert checks[0].code == "gone"


def test_a_listener_may_move_and_says_so(start: Start) -> None:
    pid = start("s = socket.create_server(('127.0.0.1', 0));" + WAIT)
    found = examine(pid)
    (sock,) = (s for s in found.sockets if s.kind == "tcp")
    assert (sock.state, sock.local) == ("listen", f"127.0.0.1:{sock.port}")
    assert judge(found)[0] is Movable.YES
    assert codes(found, fatal=False) == {"tree", "tcp_listen"}
    # The port is taken here, of course: by the job itself.
    assert [c.code for c in check_needs(needs_of(found))] == ["port_taken"]


def test_an_open_connection_forbids_it_unless_it_may_be_closed(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        pid = start(f"s = socket.create_connection(('127.0.0.1', {port}));" + WAIT)
        found = examine(pid)
        assert judge(found)[0] is Movable.FIX
        assert f"127.0.0.1:{port}" in text(found, "tcp_established")
        answer, checks = judge(found, tcp="close")
        assert answer is Movable.YES
        assert "tcp_closes" in {check.code for check in checks}
        assert judge(found, tcp="keep")[0] is Movable.YES


def test_unix_sockets_inside_are_fine_and_outside_not(start: Start, tmp_path: Path) -> None:
    inside = examine(start("a, b = socket.socketpair(); os.fork();" + WAIT))
    assert len(inside.sockets) == 2
    assert judge(inside)[0] is Movable.YES
    with tempfile.TemporaryDirectory(prefix="om") as place, socket.socket(socket.AF_UNIX) as server:
        path = f"{place}/s"
        server.bind(path)
        server.listen()
        outside = examine(start(f"s = socket.socket(socket.AF_UNIX); s.connect({path!r});" + WAIT))
    assert judge(outside)[0] is Movable.FIX
    assert path in text(outside, "unix_external")


def test_sockets_are_read_from_tables_where_borrowing_is_forbidden(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omcore.checkpoint.sockets._borrow", lambda pid, fd: None)
    found = examine(
        start(
            "a = socket.create_server(('127.0.0.1', 0)); b = socket.create_connection(a.getsockname());"
            "c, d = socket.socketpair(); e = socket.socket(type=socket.SOCK_DGRAM); e.bind(('', 0));" + WAIT
        )
    )
    assert sorted((s.kind, s.state) for s in found.sockets) == [
        ("tcp", "established"),
        ("tcp", "listen"),
        ("udp", ""),
        ("unix", "connected"),
        ("unix", "connected"),
    ]
    assert not any(s.external for s in found.sockets)


def test_io_uring_can_never_move(start: Start) -> None:
    pid = start(
        "p = ctypes.create_string_buffer(120); fd = ctypes.CDLL(None).syscall(425, 4, p);"
        "print(fd, flush=True); signal.pause()"
    )
    found = examine(pid)
    if not any("io_uring" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")):
        pytest.skip("this kernel forbids io_uring")
    assert judge(found)[0] is Movable.NO
    assert codes(found) == {"io_uring"}


def test_a_traced_process_names_its_tracer(start: Start) -> None:
    pid = start(WAIT)
    tracer = start(f"assert ctypes.CDLL(None).ptrace(0x4206, {pid}, 0, 0) == 0;" + WAIT)
    found = examine(pid)
    assert judge(found)[0] is Movable.FIX
    assert str(tracer) in text(found, "traced")


@needs_root
def test_nested_namespaces_can_never_move(start: Start) -> None:
    pid = start(
        "import subprocess; p = subprocess.Popen(['unshare', '-m', 'sh', '-c', 'echo up; sleep 60'], stdout=-1);"
        "p.stdout.readline();" + WAIT
    )
    found = examine(pid)
    assert judge(found)[0] is Movable.NO
    assert "mnt" in text(found, "namespaces")


POD = ("unshare", "-p", "-m", "-f", "--mount-proc")
LEAK = 'exec 7</etc/passwd; export LEAK=7; exec "$@"'
SHIM = """
pid = os.fork()
if pid == 0:
    os.dup2(os.open('/dev/null', os.O_RDWR), 2)  # what came from outside the pod cannot be looked up by CRIU
    %s
    os.write(1, b'root\\n')
    signal.pause()
signal.pause()
"""


def pod_root(outer: int) -> int:
    """PID of the job's root in a pod made by `start`: the child of the shim that still waits."""
    shim = tree(outer)[1]
    return tree(shim)[1]


@needs_root
def test_a_pod_is_known_and_its_root_can_move(start: Start) -> None:
    found = examine(pod_root(start(SHIM % "os.setsid()", *POD)))
    assert found.in_pod
    assert not found.rootless
    assert judge(found)[0] is Movable.YES


@needs_root
def test_what_was_opened_outside_the_pod_is_found(start: Start) -> None:
    found = examine(pod_root(start(SHIM % "os.dup(int(os.environ['LEAK']))", "sh", "-c", LEAK, "sh", *POD)))
    assert judge(found)[0] is Movable.FIX
    assert "/etc/passwd" in text(found, "foreign_mount")


@needs_root
def test_a_stray_under_pid_1_is_found(start: Start) -> None:
    daemon = "r, w = os.pipe()\n    if os.fork() == 0:\n        if os.fork():\n            os._exit(0)\n"
    daemon += "        os.setsid()\n        while os.getppid() != 1: pass\n"
    daemon += "        os.write(w, b'x')\n        signal.pause()\n    os.read(r, 1)"
    found = examine(pod_root(start(SHIM % daemon, *POD)))
    assert judge(found)[0] is Movable.FIX
    assert "background" in text(found, "stray")


@needs_root
def test_without_root_file_watches_cannot_move(start: Start) -> None:
    watch = "ctypes.CDLL(None).inotify_init()"
    with_root = examine(pod_root(start(SHIM % watch, *POD)))
    assert judge(with_root)[0] is Movable.YES
    without = examine(pod_root(start(SHIM % watch, "unshare", "-U", "-r", *POD[1:])))
    assert without.rootless
    assert codes(without) == {"inotify"}


def test_deleted_files_travel_up_to_a_limit(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "ghost"
    pid = start(f"f = open({str(path)!r}, 'w+'); f.truncate(3 << 20); os.unlink(f.name);" + WAIT)
    found = examine(pid)
    (ghost,) = (file for file in found.files if file.deleted)
    assert (ghost.path, ghost.size) == (str(path), 3 << 20)
    assert judge(found)[0] is Movable.YES
    assert judge(found, ghost_limit_bytes=1 << 20)[0] is Movable.FIX
    assert str(path) not in {file.path for file in needs_of(found).files}


def test_memory_shared_with_somebody_outside_is_found(start: Start) -> None:
    outer = start("m = mmap.mmap(-1, 4096); os.fork();" + WAIT)
    await_tasks(outer, 2)
    child = tree(outer)[1]
    assert judge(examine(outer))[0] is Movable.YES  # both are in the tree
    found = examine(child)
    assert judge(found)[0] is Movable.FIX
    assert str(outer) in text(found, "shared_memory")


def test_a_shared_file_mapping_of_its_own_is_fine(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_bytes(b"x" * 8192)
    found = examine(start(f"f = open({str(path)!r}, 'r+b'); m = mmap.mmap(f.fileno(), 0);" + WAIT))
    assert judge(found)[0] is Movable.YES
    assert next(mapped for mapped in found.mapped if mapped.path == str(path)).size == 8192


def test_a_device_is_named(start: Start) -> None:
    path = next(
        (p for p in ("/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/loop-control") if os.access(p, os.R_OK)), ""
    )
    if not path:
        pytest.skip("no device here that may be opened")
    found = examine(start(f"f = os.open({path!r}, os.O_RDWR);" + WAIT))
    assert judge(found)[0] is Movable.FIX
    assert path in text(found, "device")


def test_names_and_paths_of_others_are_cleaned() -> None:
    task = Task(7, "a\x1b[31mb", 1, 7, (1000, 0, 0, 0), 1000, tracer="gdb\n 9")
    found = Findings(7, name="a\x1b[31mb", alive=True, tasks=[task], devices=[Held("x\u202ey 7", "/dev/\x07")])
    answer, checks = judge(found)
    assert answer is Movable.NO
    assert {check.code for check in checks} == {"setuid", "traced", "device"}
    assert all(check.text.isprintable() for check in checks)


def test_many_of_a_kind_are_counted_and_reasons_come_before_notes() -> None:
    task = Task(7, "a", 1, 7, (0, 0, 0, 0), 0)
    lonely = Task(8, "b", 1, 99, (0, 0, 0, 0), 0)
    found = Findings(7, alive=True, tasks=[task, lonely], devices=[Held("a 7", f"/dev/x{i}") for i in range(9)])
    answer, checks = judge(found)
    assert answer is Movable.FIX
    assert [check.code for check in checks] == ["device"] * 5 + ["leaderless"]
    assert "5 more" in checks[4].text


# -- the destination ------------------------------------------------------------------------------------------


@pytest.fixture
def needs(start: Start, tmp_path: Path) -> Needs:
    data = tmp_path / "data"
    data.write_text("1234")
    (tmp_path / "log").write_text("")
    pid = start(
        f"os.chdir({str(tmp_path)!r}); f = open('data'); g = open('log', 'a'); h = os.open('.', os.O_RDONLY);" + WAIT
    )
    return needs_of(examine(pid), criu=(4, 2, 1))


def wrong(needs: Needs, **other: object) -> list[str]:
    return [check.code for check in check_needs(needs, criu=(4, 2, 1), **other)]  # type: ignore[arg-type]


def test_where_nothing_is_missing_nothing_is_said(needs: Needs) -> None:
    assert wrong(needs, image_dir="/dev/shm") == []
    assert needs.left_out == 0


def test_files_are_compared_as_criu_will(needs: Needs, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("grown")  # open for writing: may differ
    assert wrong(needs) == []
    (tmp_path / "data").write_text("12345")
    assert wrong(needs) == ["file_size"]
    (tmp_path / "data").chmod(0o600)
    assert wrong(needs) == ["file_mode"]
    (tmp_path / "data").unlink()
    assert wrong(needs) == ["file_missing"]


def test_another_build_of_a_library_is_seen(needs: Needs) -> None:
    files = tuple(replace(file, build_id="00" * 20) if file.build_id else file for file in needs.files)
    found = wrong(replace(needs, files=files))
    assert set(found) <= {"file_build", "file_more"}
    assert found


def test_the_machine_must_fit(needs: Needs, tmp_path: Path) -> None:
    assert wrong(replace(needs, directories=(str(tmp_path / "no"),))) == ["cwd_missing"]
    assert wrong(replace(needs, arch="s390x")) == ["arch"]
    assert wrong(replace(needs, uid=4_000_000_000, user="ghost\x1b")) == ["user_missing"]
    assert wrong(needs, mem_free_bytes=1) == ["no_memory"]
    assert wrong(replace(needs, rss_bytes=1 << 60), mem_free_bytes=1 << 62, image_dir="/dev/shm") == ["no_room"]
    assert wrong(replace(needs, criu=(4, 3))) == ["criu_old"]
    assert [check.code for check in check_needs(needs, criu=())] == ["criu_missing"]


def test_hostile_needs_do_no_harm(needs: Needs) -> None:
    paths = ("relative", "/nul\0byte", "/\udcff\x1b", "/" + "x" * 100_000, "/dev/zero/..")
    files = tuple(replace(needs.files[0], path=path) for path in paths)
    checks = check_needs(replace(needs, files=files, ports=(0, 99_999)), criu=(4, 2, 1))
    assert [check.code for check in checks] == ["file_missing"] * 5
    assert all(check.text.isprintable() and len(check.text) < 300 for check in checks)


def test_needs_are_bounded(start: Start) -> None:
    found = examine(start(WAIT))
    mapped = found.mapped[0]
    found.mapped += [replace(mapped, path=f"/{'d' * 200}/{i}", build_id="") for i in range(3000)]
    needs = needs_of(found)
    assert needs.left_out > 0
    assert sum(len(file.path) + 60 for file in needs.files) < 200_000
    assert needs.files[0].build_id  # programs and libraries come first
