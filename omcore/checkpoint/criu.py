"""CRIU: where it is, how it is called, and what its errors mean in plain words.  It is run by a pod's PID 1 only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omcore.checkpoint.get import MINIMUM, prefix_command
from omcore.jobs.frames import IMAGES_FD, JOB_FDS, TTY_FD
from omcore.paths import find_paths

_COMMON = (
    "--no-default-config",
    "-v2",
    "--manage-cgroups=ignore",
    "--leave-stopped",
    "--file-locks",
    "--link-remap",
    "--ghost-limit=256M",
    "--network-lock=skip",  # open TCP connections are refused anyway, and setting up nftables costs 10 ms a call
)
_SYSTEM_PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True, slots=True)
class Criu:
    """How to run one CRIU: the words before its own arguments, and its version, (4, 2, 1)."""

    command: tuple[str, ...]
    version: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stdio:
    """What of a dumped job's stdio must be handed to CRIU again at the restore; read from relay.img."""

    tty: tuple[int, ...] = ()
    inodes: tuple[int, ...] = (0, 0, 0)  # of the pipes at the source; 0: that one is the pty
    key: str = ""  # the pty's slave: hexadecimal rdev:dev
    at_end: tuple[int, ...] = field(default=())  # pipes that no task has open any more


def find_criu(environ: Mapping[str, str] | None = None) -> Criu | None:
    """The first CRIU that runs: $OMVIEW_CRIU (a program, or a prefix with root/ in it), the user's own, the system's.

    Runs `criu --version` once per candidate (10 ms).  A set but useless $OMVIEW_CRIU gives None: no surprise.
    """
    env = os.environ if environ is None else environ
    if named := env.get("OMVIEW_CRIU"):
        return _try(_command(Path(named)))
    for command in _candidates(env):
        if found := _try(command):
            return found
    return None


def _candidates(env: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    yield prefix_command(find_paths(env).criu)
    path = os.pathsep.join(("/usr/local/sbin", "/usr/local/bin", env.get("PATH", ""), *_SYSTEM_PLACES))
    if program := shutil.which("criu", path=path):
        yield (program,)


def _command(place: Path) -> tuple[str, ...]:
    """How to run what a path names: a prefix through its own loader, else the program itself."""
    if place.is_dir():
        return prefix_command(place)
    prefix = place.parents[3] if len(place.parents) > 3 and place.parts[-4:-1] == ("root", "usr", "sbin") else None
    return (prefix and prefix_command(prefix)) or (str(place),)


def _try(command: tuple[str, ...]) -> Criu | None:
    found = version(command)
    return Criu(command, found) if found else None


def version(command: Sequence[str]) -> tuple[int, ...]:
    """What `criu --version` says; () when it does not run."""
    if not command:
        return ()
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"^Version: (\d+(?:\.\d+)*)", done.stdout, re.MULTILINE)
    return tuple(int(part) for part in found[1].split(".")) if found and done.returncode == 0 else ()


def check(criu: Criu) -> list[str]:
    """Problems of this CRIU on this kernel, in words; empty: none known.

    `criu check` needs root; for other users the version and the user namespaces are all that can be asked.
    """
    problems = []
    if criu.version < MINIMUM:
        wanted, have = (".".join(map(str, numbers)) for numbers in (MINIMUM, criu.version))
        problems.append(f"CRIU {have} is too old: {wanted} or newer is needed on current kernels")
    if os.geteuid():
        return problems + _userns_problems()
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [*criu.command, "check", "--no-default-config"], capture_output=True, text=True, cwd=scratch, check=False
        )
    if done.returncode:
        problems += [sentence for sentence in last_errors(done.stderr + done.stdout)[-3:]]
    return problems


def _userns_problems() -> list[str]:
    try:
        limit = int(Path("/proc/sys/user/max_user_namespaces").read_text())
    except (OSError, ValueError):
        return ["this kernel has no user namespaces"]
    return [] if limit else ["user namespaces are switched off (user.max_user_namespaces = 0)"]


def dump_argv(criu: Criu, root: int, key: str, unprivileged: bool) -> list[str]:
    """The command line of a dump of the tree below `root` (a PID of the pod); `key`: its pty's, or ""."""
    argv = [*criu.command, "dump", *_COMMON, "-t", str(root), "-D", f"/proc/self/fd/{IMAGES_FD}", "-o", "dump.log"]
    argv.append("--shell-job")  # its session leader is the shim, outside the tree
    if key:
        argv += ["--external", f"tty[{key}]"]
    return argv + (["--unprivileged"] if unprivileged else [])


def restore_argv(criu: Criu, stdio: Stdio, unprivileged: bool) -> list[str]:
    """The command line of a restore in a fresh pod: stopped, and a child of the pod's PID 1.

    Without --shell-job: the new shim has the old one's session number, 1, so sessions and groups fit as they are
    (with it CRIU would move the root into its own process group).
    """
    argv = [*criu.command, "restore", *_COMMON, "-D", f"/proc/self/fd/{IMAGES_FD}", "-o", "restore.log", "-d", "-S"]
    for fd, inode in enumerate(stdio.inodes):
        if inode and fd not in stdio.at_end:
            argv += ["--inherit-fd", f"fd[{JOB_FDS[fd]}]:pipe:[{inode}]"]
    if stdio.key:
        argv += ["--inherit-fd", f"fd[{TTY_FD}]:tty[{stdio.key}]"]
    return argv + (["--unprivileged"] if unprivileged else [])


_HARMLESS = ("RLIMIT_NOFILE", "net.c:1253", "Unable to create tun", "Dumping FAILED", "Restoring FAILED")
_ERROR = re.compile(r"^(?:\(\d+\.\d+\))?\s*(?:\d+: )?Error \(([^)]*)\): (.*)$")


def last_errors(log: str) -> list[str]:
    """The error lines of a CRIU log, oldest first, without time stamps and source places, harmless ones left out."""
    found = []
    for line in log.splitlines():
        match = _ERROR.match(line)
        if match and not any(word in line for word in _HARMLESS):
            found.append(match[2].strip())
    return found


Explain = Callable[[re.Match[str]], tuple[str, str]]


def _words(text: str, hint: str) -> Explain:
    return lambda match: (text.format(*match.groups()), hint.format(*match.groups()))


_MEANINGS: tuple[tuple[str, Explain], ...] = (
    (r"io_uring", _words("the job uses io_uring, which cannot be moved", "Many programs have a switch against it.")),
    (
        r"External socket is used|half of stream unix connection|ext-unix-sk|Can't dump half",
        _words(
            "the job talks over a unix socket to a program outside (X11, D-Bus, an agent)",
            "Close that connection, or start the job without it.",
        ),
    ),
    (
        r"Connected TCP socket|tcp-established|In-flight connection",
        _words("the job has an open TCP connection", "Wait until it is closed, or keep the job here."),
    ),
    (
        r"proper root mount|nested|Can't dump nested|different namespaces|pid namespaces",
        _words("the job made namespaces of its own (a container or sandbox)", "Keep such jobs here."),
    ),
    (
        r"Unseizable|already traced|is being traced|Unable to (?:seize|attach)",
        _words("the job is being traced (a debugger or strace)", "Detach the debugger and try again."),
    ),
    (
        r"File (\S+) has bad size (\d+) \(expect (\d+)\)",
        _words("the file /{0} is another one there: {1} bytes, not {2}", "Install the same version on both nodes."),
    ),
    (
        r"File (\S+) has bad build-ID",
        _words("the program or library /{0} is another build there", "Install the same version on both nodes."),
    ),
    (
        r"File (\S+) has bad mode",
        _words("the file /{0} has other permissions there", "Give it the same permissions."),
    ),
    (
        r"Can't open file (\S+) on restore|Can't open (?:file )?(\S+): No such file|Can't open vma|Can't open cwd",
        lambda match: (
            f"the file /{name} is missing there" if (name := match[1] or match[2]) else "a file is missing there",
            "Have the same files on both nodes: same system, shared home.",
        ),
    ),
    (
        r"ghost file .*|ghost limit|increase limit",
        _words("a deleted file that is still open is larger than 256 MiB", "Wait until the job has closed it."),
    ),
    (
        r"file locks are hold|file-locks|Can't (?:set|dump) .*lock|lock_.*failed",
        _words("a file lock of the job could not be taken along", "Wait until the lock is released."),
    ),
    (
        r"Can't fork for (\d+): File exists|pid (\d+) is (?:already )?(?:taken|used)",
        lambda match: (
            f"PID {match[1] or match[2]} is taken in the new pod",
            "Try again; the pod was not empty.",
        ),
    ),
    (
        r"No space left on device",
        _words("no space is left for the images", "Free memory or grow the tmpfs that holds them."),
    ),
    (
        r"suspending seccomp|seccomp",
        _words("the job filters its system calls (seccomp)", "Such jobs move only when the engine runs as root."),
    ),
    (
        r"fsnotify|inotify",
        _words("the job watches files (inotify)", "Such jobs move only when the engine runs as root."),
    ),
    (
        r"Can't bind inet socket.*in use|Address already in use",
        _words("a port the job listens on is taken there", "Free the port, or choose another node."),
    ),
    (
        r"SysVIPC|doesn't live in IPC ns",
        _words("the job shares System V memory with the host", "Keep such jobs here."),
    ),
    (
        r"CAP_SYS_ADMIN|CAP_CHECKPOINT_RESTORE",
        _words("CRIU may not work here: it lacks the capability to checkpoint", "Run `omview doctor`."),
    ),
    (r"cpu.*(?:mismatch|not supported|capabilities)|CPU", _words("the CPU there lacks features", "Choose another.")),
)


def explain(log: str) -> tuple[str, str]:
    """What a CRIU log says in one sentence, and a hint; the first cause counts, as later errors follow from it.

    A log of no known error gives its last error line; an empty log a sentence that says so.
    """
    errors = last_errors(log)
    for error in errors:
        for pattern, meaning in _MEANINGS:
            if match := re.search(pattern, error):
                return meaning(match)
    if errors:
        return f"CRIU: {errors[-1]}", "The whole log is in the details."
    return "CRIU failed without a word", "Run `omview doctor`."
