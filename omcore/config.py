"""The user's settings, read once from config.toml: one frozen value with a reason for every refusal.

An empty or missing file is a good one: every key has a default that works on a machine nobody configured.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from omcore.errors import ConfigError

DEFAULT_PORT = 4632
MIB = 1024 * 1024

Name = Annotated[str, Meta(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?)?$")]
Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=0, le=4096)]
LogBytes = Annotated[int, Meta(ge=4096, le=1024 * MIB)]
Invites = Annotated[str, Meta(pattern="^(members|keyholders)$")]
Share = Annotated[str, Meta(pattern="^(work|look)$")]
Level = Annotated[str, Meta(pattern="^(debug|info|warning|error)$")]


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of one engine; the defaults are those of a user engine on a machine of its own."""

    name: Name = ""  # of this node; "" takes the host name
    listen: tuple[str, ...] = ()  # addresses for peers; none: the private ones, once there is a second node
    port: Port = DEFAULT_PORT  # for peers; the next free one is taken if it is in use; 0: any
    peers: tuple[str, ...] = ()  # "host:port" to dial at start, besides those remembered
    map: str = ""  # an openmosix.map with the nodes' addresses; a relative path begins at config.toml
    discover: bool = True  # announce and look for members on the bound networks, once there are two
    share: Share = "work"  # what other members may do here: "work", or "look" (see figures only)
    invites: Invites = (
        "members"  # whose invitations and removals a keyholder signs: those of "members", or "keyholders"
    )
    max_guests: Count = 64  # guests at the same time; 0: none come
    log_level: Level = "info"
    keep_log_bytes: LogBytes = 1 * MIB  # of each job's output, for `omview logs`


ALLOWED = {
    "name": "letters, digits, '.', '_' and '-', at most 64 characters",
    "listen": 'a list of addresses, e.g. ["192.168.1.5", "fd00::5"]',
    "port": "a whole number from 0 to 65535",
    "peers": 'a list of "host:port", e.g. ["birch:4632"]',
    "map": 'the path of an openmosix.map, e.g. "/etc/openmosix.map"',
    "discover": "true or false",
    "share": '"work" or "look"',
    "invites": '"members" or "keyholders"',
    "max_guests": "a whole number from 0 to 4096",
    "log_level": '"debug", "info", "warning" or "error"',
    "keep_log_bytes": f"a whole number of bytes from 4096 to {1024 * MIB}",
}
ENVIRONMENT = {"OMVIEW_NAME": "name", "OMVIEW_LOG_LEVEL": "log_level"}


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Read config.toml and the few variables that override it; a missing file gives the defaults.

    Raises ConfigError, one line that names file, key, value and what is allowed.
    """
    try:
        text = path.read_bytes().decode()
        raw = tomllib.loads(text)
    except FileNotFoundError:
        raw = {}
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start}", "is it the right file?") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", "mend that line, or move the file away") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "is it a file of yours?") from error
    config = parse_config(raw, str(path))
    env = os.environ if environ is None else environ
    overrides = {key: env[variable] for variable, key in ENVIRONMENT.items() if env.get(variable)}
    return parse_config({**msgspec.to_builtins(config), **overrides}, "environment") if overrides else config


def parse_config(raw: Mapping[str, object], source: str) -> Config:
    """Check a table of settings; `source` is what an error blames. Raises ConfigError."""
    try:
        config = msgspec.convert(dict(raw), Config)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, source) from error
    for address in config.listen:
        _check_address(address, source)
    for peer in config.peers:
        _check_peer(peer, source)
    return config


def split_peer(peer: str) -> tuple[str, int]:
    """The host and port of "host:port" or "[v6]:port". Raises ConfigError."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):(\d{1,5})", peer)
    if found is None or not 0 < int(found[3]) < 65536:
        raise ConfigError(f"peer {peer!r} is not host:port", 'for example "birch:4632" or "[fd00::5]:4632"')
    return found[1] or found[2], int(found[3])


def join_peer(host: str, port: int) -> str:
    """The inverse of `split_peer`: "host:port", with brackets for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _explain(complaint: str, raw: Mapping[str, object], source: str) -> ConfigError:
    unknown = re.search(r"unknown field `(.*?)`", complaint)
    if unknown:
        near = difflib.get_close_matches(unknown[1], ALLOWED, n=1)
        hint = f"did you mean {near[0]}?" if near else "known keys: " + ", ".join(ALLOWED)
        return ConfigError(f"{source}: there is no key {_short(unknown[1])}", hint)
    where = re.search(r"at `\$\.(\w+)", complaint)
    key = where[1] if where else ""
    return ConfigError(
        f"{source}: {key} = {_short(raw.get(key))} is not allowed",
        f"{key} takes {ALLOWED.get(key, 'something else')}",
    )


def _check_address(address: str, source: str) -> None:
    try:
        ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        raise ConfigError(
            f"{source}: listen = {_short(address)} is not an address", f"listen takes {ALLOWED['listen']}"
        ) from None


def _check_peer(peer: str, source: str) -> None:
    try:
        split_peer(peer)
    except ConfigError as error:
        raise ConfigError(f"{source}: peers: {error.text}", error.hint) from None


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
