"""`omview doctor --security`: whether what the design promises holds on this machine, now (SECURITY section 13).

Tried where it can be tried: the engine's ports are dialled with a stray key, which must be refused; its listening
sockets are read from the kernel and compared with what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from omcore.client import connect
from omcore.errors import EngineUnreachable, NotTrusted, OmError
from omcore.paths import Paths, filesystem, find_paths
from omcore.transport.addresses import is_private
from omcore.transport.ask import ask_once
from omcore.transport.sockets import OLDEST, library
from omcore.trust.keys import generate_node_key, load_cluster_key, load_node_key
from omcore.trust.tokens import split_address
from omcore.types import DoctorLine, KeysView, NodeId, SecurityView

PROC = Path("/proc")
DIAL_S = 5.0
OLD_ROSTER_S = 600.0
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "fuse.sshfs", "lustre")

Lines = Iterable[DoctorLine]


def security_lines(paths: Paths | None = None) -> tuple[DoctorLine, ...]:
    """All findings; changes nothing. Takes a second or two."""
    places = paths if paths is not None else find_paths()
    found = [*library_lines(), *file_lines(places)]
    found += asyncio.run(_engine_lines(places))
    return (*found, *memory_lines(), *kernel_lines())


# -- the engine


async def _engine_lines(places: Paths) -> list[DoctorLine]:
    try:
        client = await connect(places.socket)
    except EngineUnreachable:
        return [DoctorLine("ok", "engine", "none runs, so nothing listens")]
    except OmError as error:
        return [DoctorLine("bad", "engine", error.text, error.hint)]
    async with client:
        view, keys = await client.security(), await client.keys()
        found = [*engine_lines(view), *socket_lines(places)]
        found += await asyncio.to_thread(lambda: list(port_lines(view, listening(client.peer_pid()))))
        found += [line for address in view.listening for line in await stray_lines(address, view.me)]
        return [*found, *key_lines(keys)]


def engine_lines(view: SecurityView, uid: int | None = None) -> Lines:
    """Who the engine is, what it lets others do, and what it had to refuse."""
    uid = os.geteuid() if uid is None else uid
    if uid:
        yield DoctorLine("ok", "engine", f"{view.kind}, uid {uid}, no privileges")
    else:
        fix = "run omview as an ordinary user; this one's jobs are root's, here and elsewhere"
        yield DoctorLine("warn", "engine", f"{view.kind}, runs as root", fix)
    rights = "members may see figures only" if view.share == "look" else "members may run and move jobs as you"
    who = "every member" if view.invites == "members" else "a keyholder's owner"
    yield DoctorLine("ok", "rights", f"{rights}; {who} may admit and remove")
    announced = "on, under a name that changes; never an admission" if view.discover else "off"
    yield DoctorLine("ok", "discovery", announced)
    yield DoctorLine("ok", "strangers", f"{view.refused} refused since the start")
    for drop in view.dropped:
        text = f"{drop.count} messages of {drop.node} not taken: {drop.why}"
        yield DoctorLine("warn", "members", text, f"if {drop.node} is not to be trusted: omview forget {drop.node}")


def socket_lines(places: Paths) -> Lines:
    """Only its owner reaches the control socket."""
    mode = stat.S_IMODE(os.stat(places.socket).st_mode)
    if mode & 0o077:
        yield DoctorLine("bad", "control socket", f"mode {mode:04o}", f"chmod 600 {places.socket}")
    else:
        yield DoctorLine("ok", "control socket", f"mode {mode:04o}, in a directory of yours alone")


def listening(pid: int, proc: Path = PROC) -> frozenset[int] | None:
    """TCP ports that a process listens on; None where the kernel does not tell us."""
    inodes = set()
    try:
        for fd in os.listdir(proc / str(pid) / "fd"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(proc / str(pid) / "fd" / fd).removeprefix("socket:[").removesuffix("]"))
        lines = [
            line
            for name in ("tcp", "tcp6")
            if (proc / str(pid) / "net" / name).exists()
            for line in (proc / str(pid) / "net" / name).read_text().splitlines()[1:]
        ]
    except OSError:
        return None
    fields = (line.split() for line in lines)
    return frozenset(int(f[1].rpartition(":")[2], 16) for f in fields if f[3] == "0A" and f[9] in inodes)


def port_lines(view: SecurityView, found: frozenset[int] | None) -> Lines:
    """What listens, against what should."""
    expected = {split_address(address)[1] for address in view.listening}
    where = ", ".join(view.listening) or "nothing: this machine is alone"
    if found is None:
        text = f"{where}; the kernel does not show the engine's sockets"
        yield DoctorLine("warn", "ports", text, "run this as the engine's owner")
    elif found - expected:
        strange = ", ".join(map(str, sorted(found - expected)))
        yield DoctorLine("bad", "ports", f"the engine's process also listens on {strange}", "find out why; restart it")
    else:
        yield DoctorLine("ok", "ports", where)
    public = [address for address in view.listening if _is_public(address)]
    if public:
        port = split_address(public[0])[1]
        fix = f"let only your machines in: nft add rule inet filter input tcp dport {port} ip saddr != YOURS drop"
        yield DoctorLine("warn", "ports", f"reachable from the Internet: {', '.join(public)}", fix)


def _is_public(address: str) -> bool:
    host = split_address(address)[0].partition("%")[0]
    return not is_private(host) and not host.startswith("127.") and host != "::1"


async def stray_lines(address: str, node: NodeId) -> Lines:
    """A key that nobody admitted must be refused, and by CURVE, before it can say anything."""
    try:
        await ask_once(address, node, generate_node_key(), b"", DIAL_S)
    except NotTrusted:
        return [DoctorLine("ok", "stray key", f"refused at {address}")]
    except OmError as error:
        return [DoctorLine("warn", "stray key", f"not tried: {error.text}", "is a firewall between?")]
    return [DoctorLine("bad", "stray key", f"admitted at {address}", "stop the engine: omview serve --stop")]


def key_lines(view: KeysView) -> Lines:
    """Who may change the membership, and whether this node would hear of a removal."""
    yield DoctorLine("ok", "this node", view.node)
    yield DoctorLine("ok", "cluster key", f"{view.cluster}, epoch {view.epoch}")
    if view.turns:
        text = f"two new cluster keys, so the membership is frozen: {', '.join(view.turns)}"
        yield DoctorLine("bad", "cluster key", text, "on every node: omview key accept FINGERPRINT of the right one")
    names = ", ".join(holder.name for holder in view.keyholders) or "nobody"
    count = len(view.keyholders)
    if view.members > 1 and count < 2:
        yield DoctorLine("warn", "keyholders", names, "a second one: omview key share NODE")
    elif count > 1 or view.members == 1:
        yield DoctorLine("ok", "keyholders", names)
    mine = any(holder.me for holder in view.keyholders)
    if mine and view.members > 1 and not view.backup and count < 2:
        yield DoctorLine("warn", "backup", "the cluster key was never exported here", "omview key export FILE")
    text = f"{view.members} members, {view.removals} removed"
    if mine or view.members < 2:
        yield DoctorLine("ok", "roster", text)
    elif view.roster_age_s is None or view.roster_age_s > OLD_ROSTER_S:
        age = "since the start" if view.roster_age_s is None else f"for {view.roster_age_s / 60:.0f} min"
        yield DoctorLine("warn", "roster", f"{text}; no keyholder confirmed it {age}", "start a keyholder's engine")
    else:
        yield DoctorLine("ok", "roster", f"{text}, confirmed {view.roster_age_s:.0f} s ago")
    if view.invitations:
        yield DoctorLine("ok", "invitations", f"{view.invitations} open; each admits one machine, within 15 minutes")


# -- this machine


def library_lines() -> Lines:
    """The library that everything between nodes goes through."""
    version, curve = library()
    text = ".".join(map(str, version))
    if version < OLDEST or not curve:
        yield DoctorLine("bad", "libzmq", f"{text}{'' if curve else ', without CURVE'}", "pip install -U pyzmq")
    else:
        yield DoctorLine("ok", "libzmq", f"{text}, CURVE, strangers refused by default (ENFORCE_DOMAIN)")


def file_lines(places: Paths) -> Lines:
    """Keys and state: ours, private, and not where another machine would load them too."""
    for load in (load_node_key, load_cluster_key):
        try:
            load(places.state)
        except FileNotFoundError:
            continue
        except NotTrusted as error:
            yield DoctorLine("bad", "keys", error.text, error.hint)
    if not places.state.exists():
        yield DoctorLine("ok", "keys", "none yet; the first start makes them")
        return
    loose = [path for path in places.state.iterdir() if path.is_file() and stat.S_IMODE(path.lstat().st_mode) & 0o077]
    secret = [path for path in loose if path.name in ("invites", "roster", "audit.log", "history")]
    for path in secret:
        yield DoctorLine("bad", "files", f"{path} can be read by others", f"chmod 600 {path}")
    mode = stat.S_IMODE(places.state.stat().st_mode)
    if mode & 0o077:
        yield DoctorLine("bad", "files", f"{places.state} has mode {mode:04o}", f"chmod 700 {places.state}")
    elif not secret:
        yield DoctorLine("ok", "files", f"{places.state} is yours alone")
    kind = filesystem(places.state)
    if kind in NETWORK:
        fix = "set XDG_STATE_HOME to a local directory"
        yield DoctorLine("warn", "files", f"{places.state} is on a network file system ({kind}): keys cross it", fix)


def memory_lines(proc: Path = PROC) -> Lines:
    """Whether images of programs may reach a disk in clear, and how fast they are encrypted on their way."""
    swaps = [line.split()[0] for line in _read(proc / "swaps").splitlines()[1:] if line.split()]
    plain = [name for name in swaps if not name.startswith(("/dev/zram", "/dev/dm-"))]
    if plain:
        fix = "encrypt the swap, or: swapoff -a"
        yield DoctorLine("warn", "swap", f"{', '.join(plain)}: images may be swapped out in clear", fix)
    else:
        yield DoctorLine("ok", "swap", "none" if not swaps else f"{', '.join(swaps)}: in memory or encrypted")
    flags = _read(proc / "cpuinfo")
    if " aes" in flags:
        yield DoctorLine("ok", "AES", "in the processor")
    elif flags:
        yield DoctorLine("warn", "AES", "not in the processor: images travel more slowly", "nothing to mend")


def kernel_lines(proc: Path = PROC) -> Lines:
    """What the kernel lets ordinary programs, guests among them, try."""
    options = next((line for line in _read(proc / "self/mounts").splitlines() if line.split()[1:2] == ["/proc"]), "")
    if "hidepid=" in options and "hidepid=0" not in options:
        yield DoctorLine("ok", "/proc", "users see their own processes only (hidepid)")
    else:
        yield DoctorLine("ok", "/proc", "every local user sees all command lines: keep secrets out of them")
    switches = (
        ("kernel.unprivileged_bpf_disabled", "unprivileged bpf"),
        ("kernel.io_uring_disabled", "io_uring"),
    )
    for name, what in switches:
        value = _read(proc / "sys" / name.replace(".", "/")).strip()
        if value in ("1", "2"):
            yield DoctorLine("ok", what, "closed to ordinary programs")
        elif value:
            text = "open to every program, guests among them"
            yield DoctorLine("warn", what, text, f"as root: sysctl -w {name}=2")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
