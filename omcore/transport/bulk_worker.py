"""One end of an image stream, as a process of its own (SECURITY section 9); `bulk.py` starts it and talks to it.

It is run by file path with `python -I` and imports nothing of omview, so it starts fast, can run as a job's owner, and
the engine never loads `cryptography`. Secrets come by stdin only. JSON lines, first the task (with "account": null or
[uid, gid, groups]):

    recv: {"role", "directory", "transfer", "key", "max_bytes", "listen", "wait_s", "idle_s", "stall_s"}
          -> port, connected, progress..., sealed | failed
    send: {"role", "directory", "address", "transfer", "key", "stall_s"}
          -> connected;  <- {"files", "extra"} -> progress..., sent;
          <- {"seal": extra or null} -> sealed, delivered | failed

On the wire: the caller says `transfer 16 | stream u8`, then both sides send frames `length u32 | type u8 | ciphertext
+ tag`. AES-256-GCM; key = BLAKE2b-256(transfer key, person "omview-bulk-1", stream u32 | direction u8); nonce = stream
u32 | counter u64, not sent; additional data = transfer | stream u32 | type u8 | length u32. The caller's first frame is
HELLO, the answer READY: so both have shown the key before the job is frozen. Then MANIFEST, DATA (all files end to end,
in the manifest's order), END(total u64, digest 32, extra), answered by DONE. The digest is BLAKE2b-256 over the tags of
all frames before END: it binds every byte without hashing 1 GB/s.
"""

from __future__ import annotations

import base64
import encodings.idna  # noqa: F401  # getaddrinfo would import it later, when we may not be able to read it
import hashlib
import hmac
import json
import os
import queue
import re
import resource
import selectors
import signal
import socket
import stat
import struct
import sys
import threading
import time
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HELLO, READY, MANIFEST, DATA, END, DONE = range(1, 7)
TO_DEST, TO_SOURCE = 0, 1
STREAM = 0
CHUNK = 256 * 1024  # plaintext and ciphertext stay in the cache of one core
MAX_FILES = 4096
MAX_EXTRA = 1280 * 1024  # relay state is at most 1 MiB
_LIMITS = {HELLO: 0, READY: 0, MANIFEST: 512 * 1024, DATA: 1024 * 1024, END: 40 + MAX_EXTRA, DONE: 0}
_TAG = 16
_HEADER = struct.Struct(">IB")
_FIRST_BYTES = 16 + 1 + _HEADER.size + _TAG  # what a caller must say within five seconds
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}\.img")
_CALLERS = 8
_CALLER_S = 5.0
_PROGRESS_S = 0.1


class TransferError(Exception):
    """The transfer ends; the text is a sentence for people."""


class Frames:
    """One direction of one stream: seals or opens frames with an implicit counter."""

    def __init__(self, key: bytes, transfer: bytes, direction: int) -> None:
        label = struct.pack(">IB", STREAM, direction)
        self._cipher = AESGCM(hashlib.blake2b(label, digest_size=32, key=key, person=b"omview-bulk-1").digest())
        self._prefix = transfer + struct.pack(">I", STREAM)
        self._counter = 0
        self._frame = memoryview(bytearray(0))  # grows to the largest frame sealed, once
        self.digest = hashlib.blake2b(digest_size=32, person=b"omview-bulk-sum")

    def _next(self, kind: int, length: int) -> tuple[bytes, bytes]:
        nonce = struct.pack(">IQ", STREAM, self._counter)
        self._counter += 1
        return nonce, self._prefix + struct.pack(">BI", kind, length)

    def _room(self, length: int) -> memoryview:
        if length > len(self._frame):
            self._frame = memoryview(bytearray(length))
        return self._frame[:length]

    def seal(self, kind: int, plain: bytes | memoryview) -> memoryview:
        """The frame for `plain`; valid until the next call."""
        length = len(plain)
        frame = self._room(_HEADER.size + length + _TAG)
        _HEADER.pack_into(frame, 0, length, kind)
        nonce, bound = self._next(kind, length)
        self._cipher.encrypt_into(nonce, plain, bound, frame[_HEADER.size :])
        self.digest.update(frame[-_TAG:])
        return frame

    def open(self, kind: int, sealed: memoryview, plain: memoryview) -> None:
        """Decrypt into `plain`, which is a tag shorter. Raises TransferError if anything was altered."""
        nonce, bound = self._next(kind, len(plain))
        try:
            self._cipher.decrypt_into(nonce, sealed, bound, plain)
        except InvalidTag:
            raise TransferError("the stream was altered, or is not the one that was agreed") from None
        self.digest.update(sealed[-_TAG:])


class Link:
    """The connection of a transfer, after both ends have shown the key."""

    def __init__(self, connection: socket.socket, out: Frames, back: Frames, stall_s: float) -> None:
        self._socket = connection
        self._out = out
        self.back = back
        self._sealed = bytearray(_LIMITS[DATA] + _TAG)
        self._plain = bytearray(_LIMITS[DATA])
        connection.setblocking(True)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(stall_s))
        self.patience(stall_s)

    def patience(self, seconds: float) -> None:
        """How long a read may stand still."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))

    def send(self, kind: int, plain: bytes | memoryview = b"") -> None:
        """Send one frame."""
        try:
            self._socket.sendall(self._out.seal(kind, plain))
        except BlockingIOError:
            raise TransferError("the other end takes nothing any more") from None
        except ConnectionError:
            raise TransferError("the stream was cut before its end") from None

    def receive(self, *kinds: int) -> tuple[int, memoryview]:
        """The next frame, which must be one of `kinds`; the content is valid until the next call."""
        header = bytearray(_HEADER.size)
        self._fill(memoryview(header))
        length, kind = _HEADER.unpack(header)
        if kind not in kinds or length > _LIMITS[kind]:
            raise TransferError("a frame came that does not belong there")
        if length > len(self._plain):
            self._sealed, self._plain = bytearray(length + _TAG), bytearray(length)
        sealed, plain = memoryview(self._sealed)[: length + _TAG], memoryview(self._plain)[:length]
        self._fill(sealed)
        self.back.open(kind, sealed, plain)
        return kind, plain

    def _fill(self, view: memoryview) -> None:
        while view:
            try:
                count = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                raise TransferError("the stream stands still") from None
            except ConnectionError:
                raise TransferError("the stream was cut before its end") from None
            if count == 0:
                raise TransferError("the stream was cut before its end")
            view = view[count:]


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


def say(event: str, **fields: Any) -> None:
    """Tell the engine."""
    line = memoryview(json.dumps({"event": event, **fields}).encode() + b"\n")
    while line:
        line = line[os.write(1, line) :]


class Progress:
    """Tells how many bytes are done, at most ten times a second."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._next = time.monotonic() + _PROGRESS_S

    def tell(self, done: int) -> None:
        """Say it if it is time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PROGRESS_S
            say("progress", done=done, total=self._total)


def check_manifest(data: bytes, max_bytes: int) -> list[tuple[str, int]]:
    """Names and sizes of the files to come. Raises TransferError for what must not be written."""
    try:
        entries = json.loads(data)
        files = [(name, size) for name, size in entries]
    except (ValueError, TypeError, RecursionError):
        raise TransferError("a manifest that cannot be read") from None
    if not isinstance(entries, list) or not 0 < len(files) <= MAX_FILES:
        raise TransferError(f"a manifest of more than {MAX_FILES} files, or of none")
    for name, size in files:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise TransferError("a manifest with a file name that is no image's")
        if type(size) is not int or size < 0:
            raise TransferError("a manifest with an impossible size")
    if len({name for name, _ in files}) != len(files):
        raise TransferError("a manifest that names a file twice")
    if (total := sum(size for _, size in files)) > max_bytes:
        raise TransferError(f"{total} bytes are announced, {max_bytes} were agreed")
    return files


def open_directory(path: str) -> int:
    """The image directory, which must be ours alone. Raises TransferError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    info = os.fstat(fd)
    if info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise TransferError("the image directory can be used by others")
    return fd


class Writer:
    """Writes the files of a manifest in order; what it made it can take away again."""

    def __init__(self, directory: int, files: list[tuple[str, int]]) -> None:
        self._directory = directory
        self._files = files
        self._made: list[str] = []
        self._fd = -1
        self._left = 0

    def advance(self) -> None:
        """Make the next file (and empty ones before it). Raises TransferError if its name is taken."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        while not self._left and len(self._made) < len(self._files):
            self.close()
            name, self._left = self._files[len(self._made)]
            try:
                self._fd = os.open(name, flags, 0o600, dir_fd=self._directory)
            except FileExistsError:
                raise TransferError(f"{name} is in the image directory already") from None
            self._made.append(name)

    def write(self, data: memoryview) -> None:
        """Append to the files. Raises TransferError when more comes than the manifest announced."""
        while data:
            if not self._left:
                raise TransferError("more bytes came than were announced")
            count = os.write(self._fd, data[: self._left])
            self._left -= count
            data = data[count:]
            self.advance()

    def whole(self) -> bool:
        """Whether all announced bytes are written."""
        return not self._left and len(self._made) == len(self._files)

    def close(self) -> None:
        """Close the file being written."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Delete everything made here."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.close()
        for name in self._made:
            os.unlink(name, dir_fd=self._directory)
        self._made = []


def wait_for_caller(
    listener: socket.socket, transfer: bytes, secret: bytes, wait_s: float
) -> tuple[socket.socket, Frames]:
    """The first caller that shows the transfer and its key; strangers cost us nothing but a slot for five seconds."""
    deadline = time.monotonic() + wait_s
    callers: dict[socket.socket, tuple[float, bytearray]] = {}
    listener.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)

        def drop(caller: socket.socket) -> None:
            selector.unregister(caller)
            del callers[caller]
            caller.close()

        while (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(min(left, 0.5)):
                if key.fileobj is listener:
                    caller, _ = listener.accept()
                    if len(callers) >= _CALLERS:
                        drop(next(iter(callers)))  # the oldest: an honest caller speaks at once
                    caller.setblocking(False)
                    callers[caller] = (time.monotonic() + _CALLER_S, bytearray())
                    selector.register(caller, selectors.EVENT_READ)
                    continue
                if not isinstance(key.fileobj, socket.socket) or key.fileobj not in callers:  # dropped a moment ago
                    continue
                caller = key.fileobj
                said = callers[caller][1]
                if not _hear(caller, said, transfer):
                    drop(caller)
                elif len(said) == _FIRST_BYTES:
                    back = Frames(secret, transfer, TO_DEST)
                    if _is_hello(said, back):
                        selector.unregister(caller)
                        del callers[caller]
                        for other in tuple(callers):
                            drop(other)
                        return caller, back
                    drop(caller)
            now = time.monotonic()
            for caller in [c for c, (until, _) in callers.items() if until < now]:
                drop(caller)
        for caller in tuple(callers):
            drop(caller)
    raise TransferError(f"nobody called within {wait_s:g} s")


def _hear(caller: socket.socket, said: bytearray, transfer: bytes) -> bool:
    try:
        piece = caller.recv(_FIRST_BYTES - len(said))
    except OSError:
        return False
    said += piece
    expected = (transfer + bytes([STREAM]))[: len(said)]
    return bool(piece) and hmac.compare_digest(bytes(said[: len(expected)]), expected)


def _is_hello(said: bytearray, back: Frames) -> bool:
    length, kind = _HEADER.unpack_from(said, 17)
    if length or kind != HELLO:
        return False
    try:
        back.open(HELLO, memoryview(said)[17 + _HEADER.size :], memoryview(bytearray(0)))
    except TransferError:
        return False
    return True


def receive(task: dict[str, Any]) -> None:
    """The destination's end."""
    transfer, secret = bytes.fromhex(task["transfer"]), bytes.fromhex(task["key"])
    directory = open_directory(task["directory"])
    host, port = task["listen"]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        listener.bind((host, port))
        listener.listen(_CALLERS)
        say("port", port=listener.getsockname()[1])
        caller, back = wait_for_caller(listener, transfer, secret, task["wait_s"])
    with caller:
        link = Link(caller, Frames(secret, transfer, TO_SOURCE), back, task["idle_s"])
        link.send(READY)
        say("connected")
        _, manifest = link.receive(MANIFEST)
        files = check_manifest(bytes(manifest), task["max_bytes"])
        link.patience(task["stall_s"])
        writer = Writer(directory, files)
        try:
            writer.advance()
            total, extra, digest = _receive_files(link, writer, files)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the images are the engine's now
        except BaseException:  # also when cancelled by signal: no image is ever left behind
            writer.remove()
            raise
        say("sealed", bytes=total, files=files, digest=digest.hex(), extra=base64.b64encode(extra).decode())
        link.send(DONE)


def _receive_files(link: Link, writer: Writer, files: list[tuple[str, int]]) -> tuple[int, bytes, bytes]:
    announced = sum(size for _, size in files)
    progress = Progress(announced)
    done = 0
    while True:
        digest = link.back.digest.digest()  # before END, whose own tag is not part of it
        kind, plain = link.receive(DATA, END)
        if kind == END:
            break
        writer.write(plain)
        done += len(plain)
        progress.tell(done)
    total = struct.unpack_from(">Q", plain)[0] if len(plain) >= 40 else -1
    if total != done or not writer.whole() or not hmac.compare_digest(bytes(plain[8:40]), digest):
        raise TransferError("the stream ended before all images were here")
    writer.close()
    return done, bytes(plain[40:]), digest


def send(task: dict[str, Any], lines: queue.SimpleQueue[dict[str, Any]]) -> None:
    """The source's end."""
    transfer, secret = bytes.fromhex(task["transfer"]), bytes.fromhex(task["key"])
    host, port = task["address"]
    try:
        connection = socket.create_connection((host, port), timeout=10)
    except OSError as error:
        raise TransferError(f"{host}:{port} does not answer: {error.strerror or error}") from None
    with connection:
        out = Frames(secret, transfer, TO_DEST)
        link = Link(connection, out, Frames(secret, transfer, TO_SOURCE), task["stall_s"])
        connection.sendall(transfer + bytes([STREAM]))
        link.send(HELLO)
        link.receive(READY)
        say("connected")
        go = lines.get()
        directory = open_directory(task["directory"])
        total = _send_files(link, directory, go["files"])
        digest = out.digest.digest()
        say("sent", bytes=total, digest=digest.hex())
        seal = lines.get()["seal"]
        extra = base64.b64decode(go["extra"] if seal is None else seal)
        if len(extra) > MAX_EXTRA:
            raise TransferError(f"{len(extra)} bytes beside the images; at most {MAX_EXTRA}")
        link.send(END, struct.pack(">Q", total) + digest + extra)
        say("sealed")
        link.receive(DONE)
        say("delivered")


def _send_files(link: Link, directory: int, names: list[str]) -> int:
    opened = [(name, os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)) for name in names]
    sizes = []
    for name, fd in opened:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise TransferError(f"{name} is no regular file")
        sizes.append((name, info.st_size))
    total = sum(size for _, size in sizes)
    link.send(MANIFEST, json.dumps(sizes).encode())
    progress = Progress(total)
    buffer = memoryview(bytearray(CHUNK))
    filled = sent = 0
    for (name, fd), (_, left) in zip(opened, sizes, strict=True):
        while left:
            count = os.readv(fd, [buffer[filled : filled + left]])
            if count == 0:
                raise TransferError(f"{name} became shorter while it was sent")
            filled, left = filled + count, left - count
            if filled == CHUNK:
                link.send(DATA, buffer)
                sent, filled = sent + filled, 0
                progress.tell(sent)
        os.close(fd)
    if filled:
        link.send(DATA, buffer[:filled])
    return total


def _listen_to_engine(lines: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        lines.put(json.loads(line))
    os.kill(os.getpid(), signal.SIGTERM)  # the engine is gone: so is the transfer


def _cancelled(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one would cut the cleaning up short
    raise TransferError("the transfer was cancelled")


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Be the job's owner from here on: everything is imported by now, nothing is opened yet.

    Not done before exec, because the owner need not be able to read the interpreter; and a process that changed its
    uid cannot be traced by others of that uid.
    """
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def main() -> int:
    """Do the task that comes on stdin; 0 only if it was done."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # this process holds a job's memory
    signal.signal(signal.SIGTERM, _cancelled)
    task = json.loads(sys.stdin.buffer.readline())
    if task["account"]:
        become(*task["account"])
    lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen_to_engine, args=(lines,), daemon=True).start()
    try:
        if task["role"] == "recv":
            receive(task)
        else:
            send(task, lines)
    except (TransferError, OSError) as error:
        say("failed", text=str(error) if isinstance(error, TransferError) else f"{error.strerror or error}")
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # the thread that reads stdin would hold an ordinary exit up
