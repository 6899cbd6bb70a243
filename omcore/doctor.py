"""What this machine can do for omview: one finding a line, each with the way to mend it.

Everything is tried rather than looked up where trying is cheap and leaves nothing behind.  "bad" means that
something a user expects will not work; "warn" that it works less well, or that it is worth knowing.
"""

from __future__ import annotations

import locale
import os
import platform
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from omcore.checkpoint.criu import check, find_criu
from omcore.checkpoint.get import MINIMUM, get_criu
from omcore.errors import OmError
from omcore.paths import Paths, find_paths, is_tmpfs, private_fault
from omcore.types import DoctorLine

PROC = Path("/proc")
TRY_SECONDS = 20.0
ROOM_BYTES = 512 * 1024 * 1024  # below this a move of an ordinary program may not fit
SMALLEST = (60, 16)  # columns and rows of the app's full screens
OLDEST = (4, 0)
MAY_WORK = "programs that do not use it move all the same"
KERNEL = (5, 9)  # CAP_CHECKPOINT_RESTORE and clone3 with a chosen PID
NAMESPACE_SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user/max_user_namespaces", "0", "28633"),
)
PROGRAMS = {"ip": "iproute2", "nft": "nftables", "unshare": "util-linux", "nsenter": "util-linux"}

Say = Callable[[str], None]
Lines = Iterator[DoctorLine]


def examine(paths: Paths | None = None) -> tuple[DoctorLine, ...]:
    """All findings about this machine and user; changes nothing. Takes a second or two."""
    places = paths if paths is not None else find_paths()
    return tuple(
        line
        for lines in (
            criu_lines(),
            pod_lines(),
            kernel_lines(),
            cgroup_lines(),
            image_lines(places),
            ptrace_lines(),
            program_lines(),
            place_lines(places),
            logout_lines(places),
            terminal_lines(),
        )
        for line in lines
    )


def mend(say: Say, paths: Paths | None = None) -> None:
    """Mend what needs no root and no decision: get CRIU, close directories that others can read.

    Goes on after a failure; each is said in a line.
    """
    places = paths if paths is not None else find_paths()
    for path in (places.state, places.runtime):
        if path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid():
            os.chmod(path, 0o700)
    if any(line.level == "bad" for line in criu_lines()):
        try:
            get_criu(places.criu, say)
        except OmError as error:
            say(f"{error.text}; {error.hint}")


def criu_lines() -> Lines:
    """Is there a CRIU, is it new enough, and does its own check find all it needs?"""
    criu = find_criu()
    if criu is None:
        named = os.environ.get("OMVIEW_CRIU")
        text = f"OMVIEW_CRIU={named} does not run" if named else "not found: jobs run here, but none can move"
        yield _bad("CRIU", text, "unset OMVIEW_CRIU" if named else "omview doctor --fix")
        return
    version = ".".join(map(str, criu.version))
    if criu.version < OLDEST:
        yield _bad("CRIU", f"{version} is too old to move programs", "omview doctor --fix")
        return
    yield _ok("CRIU", f"{version} in {criu.command[-1]}")
    problems = check(criu)
    for problem in problems:
        yield _warn("CRIU check", problem[:200], "omview doctor --fix" if criu.version < MINIMUM else MAY_WORK)
    if not problems:
        yield _ok("CRIU check", "finds all it needs in this kernel")


def pod_lines(proc: Path = PROC) -> Lines:
    """Can a pod be made without root: namespaces of user, process IDs and mounts, with a /proc of its own?"""
    done = _try(["unshare", "--user", "--map-root-user", "--pid", "--mount", "--fork", "--mount-proc", "true"])
    if done is not None and done.returncode == 0:
        yield _ok("rootless pods", "user, pid and mount namespaces can be made")
        return
    for name, off, on in NAMESPACE_SWITCHES:
        if _read(proc / "sys" / name) == off:
            key = name.replace("/", ".")
            yield _bad("rootless pods", f"{key} = {off} forbids user namespaces", f"as root: sysctl -w {key}={on}")
            return
    where = " (in a container? it must allow them)" if os.path.exists("/.dockerenv") else ""
    yield _bad("rootless pods", f"{_complaint(done)}{where}", "omview works as root here; jobs of others do not")


def kernel_lines(proc: Path = PROC) -> Lines:
    """Which features of the kernel are there?"""
    release = platform.release()
    found = re.match(r"(\d+)\.(\d+)", release)
    if found and (int(found[1]), int(found[2])) < KERNEL:
        yield _bad("kernel", f"{release} is older than {KERNEL[0]}.{KERNEL[1]}", "boot a newer kernel")
    else:
        yield _ok("kernel", release)
    absent = [
        name
        for name, there in (
            ("pidfd", _has_pidfd()),
            ("time namespaces", (proc / "self/ns/time").exists()),
            ("userfaultfd", _has_userfaultfd(proc)),
        )
        if not there
    ]
    if absent:
        yield _warn("kernel features", f"missing: {', '.join(absent)}", "some programs will not move")
    if not (proc / "pressure/cpu").exists():
        yield _warn("kernel features", "no pressure figures (PSI): wait is not shown", "boot with psi=1")


def cgroup_lines(proc: Path = PROC, mount: Path = Path("/sys/fs/cgroup"), run: Path = Path("/run")) -> Lines:
    """Which kind of cgroups, and may we make our own below?"""
    unified = (mount / "cgroup.controllers").exists()
    hybrid = (mount / "unified/cgroup.controllers").exists()
    kind = "v2" if unified else "v1 and v2" if hybrid else "v1" if mount.is_dir() else "none"
    own = next((line[3:] for line in _read(proc / "self/cgroup").splitlines() if line.startswith("0::")), "/")
    home = (mount if unified else mount / "unified") / own.lstrip("/")
    if os.access(home, os.W_OK) and home.is_dir():
        yield _ok("cgroup", f"{kind}, ours to divide")
    else:
        ours = unified and (run / "systemd/system").is_dir()  # systemd gives each user a part of v2, and of v1 nothing
        fix = "systemd-run --user --scope bash, and the lab from there" if ours else "make the lab as root"
        yield _warn("cgroup", f"{kind}, not delegated to you: no CPU limits for lab hosts", fix)


def image_lines(paths: Paths) -> Lines:
    """Is there a place in memory for images of moving programs, and room in it?"""
    place = paths.images if paths.images.exists() else paths.images.parent
    if not is_tmpfs(place):
        yield _bad("images", f"{place} is not in memory: nothing can be moved", "mount a tmpfs on /dev/shm")
        return
    fault, fix = private_fault(place, os.lstat(place)) if place == paths.images else ("", "")
    if fault:
        yield _bad("images", f"{place} {fault}", fix)
        return
    mount = _mount_of(place)
    room = shutil.disk_usage(mount).free
    text = f"{mount}, {room / (1 << 30):.1f} GiB free"
    if room < ROOM_BYTES:
        yield _warn("images", f"{text}: large programs will not fit", f"mount -o remount,size=50% {mount}")
    else:
        yield _ok("images", text)
    if len(_read(PROC / "swaps").splitlines()) > 1:
        yield _warn("swap", "images of programs may be swapped to disk", "encrypt the swap, or swapoff")


def ptrace_lines(proc: Path = PROC) -> Lines:
    """Does Yama let CRIU look into programs of the same user?"""
    scope = _read(proc / "sys/kernel/yama/ptrace_scope") or "0"
    fix = "as root: sysctl -w kernel.yama.ptrace_scope=1"
    if scope == "3":
        yield _bad("ptrace", "switched off until the next boot: nothing can be moved", fix)
    elif scope == "2" and os.geteuid():
        yield _bad("ptrace", "only root may use it: nothing of yours can be moved", fix)
    else:
        yield _ok("ptrace", f"allowed (scope {scope})")


def program_lines() -> Lines:
    """The programs that the lab calls."""
    packages = sorted({PROGRAMS[name] for name in PROGRAMS if _which(name) is None})
    if packages:
        yield _warn(
            "lab", f"programs are missing for it: {', '.join(packages)}", f"apt-get install {' '.join(packages)}"
        )
    else:
        yield _ok("lab", "its programs are here")


def place_lines(paths: Paths) -> Lines:
    """Are the private directories and keys private, and does an engine answer?"""
    for path in (paths.state, paths.runtime):
        try:
            what = os.lstat(path)
        except OSError:
            continue  # made at the first start
        fault, fix = private_fault(path, what)
        if fault:
            yield _bad("files", f"{path} {fault}", fix)
        elif stat.S_IMODE(what.st_mode) & 0o077:
            yield _warn("files", f"{path} can be read by others", "omview doctor --fix")
    for key in sorted(paths.state.glob("*.key")):
        if stat.S_IMODE(os.lstat(key).st_mode) & 0o077:
            yield _bad("files", f"{key} can be read by others", f"chmod 600 {key}")
    if paths.socket.exists():
        yield _ok("engine", f"its socket is {paths.socket}")
    else:
        yield _ok("engine", "none runs; omview starts one by itself")


def logout_lines(paths: Paths, run: Path = Path("/run"), lingers: Path = Path("/var/lib/systemd/linger")) -> Lines:
    """Whether systemd takes the runtime directory away when this user logs out, and with it the way to the jobs."""
    if os.geteuid() == 0 or not (run / "systemd/system").is_dir() or not paths.runtime.is_relative_to(run / "user"):
        return
    user = pwd.getpwuid(os.geteuid()).pw_name
    if (lingers / user).exists():
        yield _ok("logout", "jobs and engine outlive your login")
    else:
        fix = f"loginctl enable-linger {user}"
        yield _warn("logout", "systemd removes what the engine needs to find its jobs when you log out", fix)


def terminal_lines() -> Lines:
    """Can the app draw here? Silent where there is no terminal at all."""
    if not sys.stdout.isatty():
        return
    size = shutil.get_terminal_size()
    kind = os.environ.get("TERM", "")
    if kind in ("", "dumb", "unknown"):
        yield _bad("terminal", f"TERM={kind or '(unset)'} cannot draw", "export TERM=xterm-256color")
        return
    colours = "16 million colours" if os.environ.get("COLORTERM") in ("truecolor", "24bit") else "few colours"
    text = f"{kind}, {size.columns}x{size.lines}, {'no colours (NO_COLOR)' if os.environ.get('NO_COLOR') else colours}"
    if size.columns < SMALLEST[0] or size.lines < SMALLEST[1]:
        yield _warn("terminal", text, f"at least {SMALLEST[0]}x{SMALLEST[1]} shows the full screens")
    else:
        yield _ok("terminal", text)
    if locale.getpreferredencoding(False).upper().replace("-", "") != "UTF8":
        yield _warn("terminal", "the locale is not UTF-8: plain signs are used", "export LANG=C.UTF-8")


def _ok(subject: str, text: str) -> DoctorLine:
    return DoctorLine("ok", subject, text)


def _warn(subject: str, text: str, fix: str) -> DoctorLine:
    return DoctorLine("warn", subject, text, fix)


def _bad(subject: str, text: str, fix: str) -> DoctorLine:
    return DoctorLine("bad", subject, text, fix)


def _try(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    """Run something that must not matter; None where it could not even start, or hung."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TRY_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _complaint(done: subprocess.CompletedProcess[str] | None) -> str:
    if done is None:
        return "could not be tried"
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "rror:" in line] or lines or ["it failed without a word"]
    return re.sub(r"^\(?\d+\.\d+\)?\s*|^(Error|Warn)\s*\([^)]*\):\s*", "", errors[-1])[:160]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")


def _has_pidfd() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _has_userfaultfd(proc: Path) -> bool:
    return (proc / "sys/vm/unprivileged_userfaultfd").exists() or Path("/dev/userfaultfd").exists()


def _mount_of(path: Path) -> str:
    while not os.path.ismount(path) and path != path.parent:
        path = path.parent
    return str(path)
