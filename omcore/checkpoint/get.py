"""Get CRIU from Debian, with its own C library, into a directory of this user; the system's packages stay as they are.

apt does the work: it knows the mirror, the proxy and Debian's signing keys, and it checks every package against
them.  It is told to think that nothing is installed (so that it fetches the whole closure, libc included) and to
keep its lists elsewhere, so an ordinary user may run it.  The result is a small file system that is run by its own
dynamic loader.  About 8 s and 25 MB.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from omcore.errors import OmError
from omcore.paths import find_paths

MINIMUM = (4, 2)  # older ones cannot dump sockets on current kernels
SUITES = ("forky", "sid")  # the first Debian releases whose CRIU is new enough
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
BY_HAND = "install CRIU 4.2 or newer yourself and set OMVIEW_CRIU to its path"
APT_SECONDS = 300.0
Say = Callable[[str], None]


class NoCriu(OmError):
    """CRIU could not be got; the hint says what to do about it."""

    title = "No CRIU"


def get_criu(prefix: Path | None = None, say: Say = lambda _line: None) -> Path:
    """Make sure that CRIU 4.2 or newer lies under `prefix` (this user's place by default); the prefix is returned.

    Does nothing when it is already there.  The new tree appears whole or not at all, and two callers at once
    do the work once.  `say` hears what is going on, a line each.  Raises NoCriu.
    """
    target = prefix if prefix is not None else find_paths().criu
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target.parent / ".criu.lock"):
        if prefix_version(target) >= MINIMUM:
            return target
        for program in ("apt-get", "dpkg-deb"):
            if shutil.which(program) is None:
                raise NoCriu(f"CRIU comes through apt, and there is no {program} here", BY_HAND)
        mirror, keyring = find_mirror(), _keyring()
        for suite in SUITES:
            say(f"getting CRIU from Debian {suite} (about 10 MB) ...")
            if _install(target, mirror, suite, keyring):
                say(f"CRIU {'.'.join(map(str, prefix_version(target)))} is in {target}")
                return target
    raise NoCriu(f"the Debian mirror {mirror} has no CRIU 4.2 yet", BY_HAND)


def prefix_command(prefix: Path) -> tuple[str, ...]:
    """How to run the CRIU under this prefix: its loader, its libraries, the program; () when it is not whole."""
    root = prefix / "root"
    program = root / "usr/sbin/criu"
    libraries = sorted(root.glob("usr/lib/*/libc.so.6"))
    if not program.is_file() or not libraries:
        return ()
    folder = libraries[0].parent
    loaders = sorted(folder.glob("ld-linux*.so.*")) + sorted(root.glob("usr/lib*/ld-linux*.so.*"))
    if not loaders:
        return ()
    return (str(loaders[0]), "--library-path", str(folder), str(program))


def prefix_version(prefix: Path) -> tuple[int, ...]:
    """The version of the CRIU under this prefix, (4, 2, 1); () when there is none that runs."""
    command = prefix_command(prefix)
    if not command:
        return ()
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"Version: (\d+(?:\.\d+)*)", done.stdout)
    return tuple(int(part) for part in found[1].split(".")) if found and done.returncode == 0 else ()


def find_mirror() -> str:
    """The Debian mirror of apt's own configuration. Raises NoCriu where apt has none (another distribution)."""
    listed = _apt_text("indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)", "Created-By: Packages")
    for line in listed.splitlines():
        fields = line.split()
        if fields[1:] == ["Debian", "Debian"]:
            return fields[0]
    # No lists were fetched yet (a fresh container): see what an update would fetch.
    with tempfile.TemporaryDirectory() as empty:
        os.mkdir(f"{empty}/partial")
        planned = _apt_text("-o", f"Dir::State::lists={empty}", "--print-uris", "update")
    found = re.search(rf"'(\S+?/debian/?)dists/{_codename() or '[a-z]+'}/InRelease'", planned)
    if found is None:
        raise NoCriu("apt is not configured with a Debian mirror here", BY_HAND)
    return found[1]


def _install(target: Path, mirror: str, suite: str, keyring: Path) -> bool:
    """Fetch and unpack one suite's CRIU; False when it is too old. The target changes in one rename."""
    with tempfile.TemporaryDirectory(prefix=".criu-", dir=target.parent) as scratch:
        work = Path(scratch)
        for folder in ("lists/partial", "cache/archives/partial", "criu/root"):
            (work / folder).mkdir(parents=True)
        (work / "status").touch()
        (work / "sources.list").write_text(f"deb [signed-by={keyring}] {mirror} {suite} main\n")
        _apt_run(work, "update")
        _apt_run(work, "--download-only", "install", "criu")
        root = work / "criu" / "root"
        for package in sorted((work / "cache/archives").glob("*.deb")):
            _unpack(package, root)
        for unneeded in ("usr/share", "usr/include", "var"):
            shutil.rmtree(root / unneeded, ignore_errors=True)
        if prefix_version(work / "criu") < MINIMUM:
            return False
        if target.exists():
            target.rename(work / "old")  # goes with the scratch directory
        (work / "criu").rename(target)
    return True


def _apt_run(work: Path, *arguments: str) -> None:
    options = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",  # empty: so the whole closure is fetched, libc too
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "0",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "APT::Keep-Downloaded-Packages": "1",  # container images delete what was fetched
        "Binary::apt-get::APT::Keep-Downloaded-Packages": "1",
        "Debug::NoLocking": "1",
    }
    flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    done = _run(["apt-get", "-qq", "-y", *flags, *arguments])
    if done.returncode != 0:
        raise _explain(done.stderr)


def _apt_text(*arguments: str) -> str:
    return _run(["apt-get", *arguments]).stdout


def _unpack(package: Path, root: Path) -> None:
    done = _run(["dpkg-deb", "-x", str(package), str(root)])
    if done.returncode != 0:
        raise NoCriu(f"{package.name} could not be unpacked: {_last(done.stderr)}", "is there room on the disk?")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=APT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NoCriu(f"{command[0]} did not end within {APT_SECONDS:.0f} s", "is the network very slow?") from error
    except OSError as error:
        raise NoCriu(f"{command[0]} could not be started: {error.strerror}", BY_HAND) from error


def _explain(complaint: str) -> NoCriu:
    """One sentence out of apt's many."""
    hints = (
        ("NO_PUBKEY|not signed|signatures", "as root: apt-get install --only-upgrade debian-archive-keyring"),
        ("resolve|connect|timed out|Failed to fetch|unreachable", "is there a network, and does apt-get update work?"),
        ("Unable to locate package|no installation candidate", BY_HAND),
        ("No space left|free space", "make room on that disk"),
    )
    hint = next((hint for words, hint in hints if re.search(words, complaint, re.IGNORECASE)), BY_HAND)
    return NoCriu(f"apt could not get CRIU: {_last(complaint)}", hint)


def _last(complaint: str) -> str:
    lines = [line.removeprefix("E: ").strip() for line in complaint.splitlines() if line.startswith("E: ")]
    return (lines or complaint.strip().splitlines() or ["no reason given"])[0][:300]


def _keyring() -> Path:
    for path in KEYRINGS:
        if path.is_file():
            return path
    raise NoCriu("Debian's signing keys are not here", "as root: apt-get install debian-archive-keyring")


def _codename() -> str:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return ""
    found = re.search(r"^VERSION_CODENAME=(\w+)$", text, re.MULTILINE)
    return found[1] if found else ""


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one caller at a time in; the kernel frees the lock of a caller that dies."""
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """`make criu`: get it and say where it is."""
    try:
        prefix = get_criu(say=lambda line: print(line, flush=True))
    except OmError as error:
        print(f"omview: {error.text}\n  hint: {error.hint}", file=sys.stderr)
        return 1
    print(f"CRIU {'.'.join(map(str, prefix_version(prefix)))}: {prefix}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
