"""One hop with nothing but CRIU: the reference that `make bench` compares omview's hop with.

bare_hop.py send PID ADDRESS DIR     dump the process, send the images, end it
bare_hop.py receive ADDRESS DIR      wait for images, restore them

Each end runs inside its host.  As fast as it can be done by hand: no check, no encryption, no order kept safe.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile

from omcore.checkpoint.criu import find_criu

PORT = 47123


def find() -> tuple[str, ...]:
    """How to run CRIU; looked for before the program is frozen."""
    found = find_criu()
    if found is None:
        raise SystemExit("no CRIU: make criu")
    return found.command


def criu(command: tuple[str, ...], verb: str, images: str, *more: str) -> None:
    """Run one CRIU; its log is the error."""
    done = subprocess.run(
        [*command, verb, "-D", images, "-o", f"{verb}.log", "--manage-cgroups=ignore", *more],
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        with open(f"{images}/{verb}.log", errors="replace") as log:
            raise SystemExit("".join(log.readlines()[-10:]))


def fresh(images: str) -> None:
    """An empty directory."""
    shutil.rmtree(images, ignore_errors=True)
    os.makedirs(images)


def send(pid: str, address: str, images: str) -> None:
    """Dump, ship; CRIU ends the process it has dumped."""
    fresh(images)
    command = find()
    with socket.create_connection((address, PORT), timeout=20) as line:
        criu(command, "dump", images, "-t", pid)
        with line.makefile("wb") as stream, tarfile.open(fileobj=stream, mode="w|", bufsize=1 << 20) as archive:
            archive.add(images, ".")


def receive(address: str, images: str) -> None:
    """Take the images, restore, leave the process running."""
    fresh(images)
    command = find()
    with socket.create_server((address, PORT)) as server:
        print("LISTENING", flush=True)
        line, _ = server.accept()
    with line, line.makefile("rb") as stream:
        data = io.BytesIO(stream.read())
    with tarfile.open(fileobj=data) as archive:
        archive.extractall(images, filter="data")
    criu(command, "restore", images, "-d")


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(*sys.argv[2:5])
    else:
        receive(*sys.argv[2:4])
