"""The reader of openmosix.map: which node number has which address.  Pure.

A line is `first-number  host-or-IP  count`, or `number  host-or-IP  ALIAS` for a further address of a node (a count
of 0 means the same).  With a count above 1, numbers and the last byte of the address count up together; a host name
goes with a count of 1 only.  `#` begins a comment.  Each mistake names its file and line.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from omcore.errors import ConfigError

MAX_LINES = 4096
MAX_NUMBER = 65535
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")
_FORMS = 'a line is "1 192.168.1.1 4", "3 birch 1" or "4 192.168.10.10 ALIAS"'


@dataclass(frozen=True, slots=True)
class MapEntry:
    """One address of one node; `line` is where the file says so."""

    number: int
    host: str
    line: int
    alias: bool = False


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the file, for its errors."""

    source: str
    number: int

    def error(self, text: str, hint: str = _FORMS) -> ConfigError:
        """What is wrong with this line."""
        return ConfigError(f"{self.source}, line {self.number}: {text}", hint)


def parse_map(text: str, source: str) -> tuple[MapEntry, ...]:
    """All addresses in the map, ranges spread out, in the file's order.  Raises ConfigError, one line each."""
    numbers: dict[int, int] = {}
    hosts: dict[str, int] = {}
    entries: list[MapEntry] = []
    for at, raw in enumerate(text.splitlines(), 1):
        words = raw.partition("#")[0].split()
        if not words:
            continue
        line = _Line(source, at)
        if at > MAX_LINES:
            raise line.error(f"a map has at most {MAX_LINES} lines", "is it the right file?")
        for entry in _entries(line, words):
            if entry.host.lower() in hosts:
                raise line.error(f"{entry.host} is in line {hosts[entry.host.lower()]} already", "each address once")
            if not entry.alias and entry.number in numbers:
                hint = "each number once; a further address of a node is an ALIAS"
                raise line.error(f"node {entry.number} is in line {numbers[entry.number]} already", hint)
            hosts[entry.host.lower()] = at
            if not entry.alias:
                numbers[entry.number] = at
            entries.append(entry)
    for entry in entries:
        if entry.alias and entry.number not in numbers:
            hint = "a line with its first address must be there, too"
            raise _Line(source, entry.line).error(f"no line defines node {entry.number}", hint)
    return tuple(entries)


def _entries(line: _Line, words: list[str]) -> list[MapEntry]:
    if len(words) != 3:
        raise line.error(f"{len(words)} word(s), where three belong")
    first = _whole(line, words[0], 1, MAX_NUMBER, "node number")
    host = words[1]
    if words[2].upper() == "ALIAS":
        count, alias = 1, True
    else:
        count = _whole(line, words[2], 0, MAX_NUMBER, "count")
        count, alias = max(1, count), count == 0
    if first + count - 1 > MAX_NUMBER:
        raise line.error(f"the numbers run past {MAX_NUMBER}", f"node numbers are 1 to {MAX_NUMBER}")
    ip = _address(line, host)
    if count == 1:
        return [MapEntry(first, host if ip is None else str(ip), line.number, alias)]
    if ip is None:
        raise line.error(f"{host[:64]!r} is a name, and a count of {count} needs an address", "a name has the count 1")
    if not isinstance(ip, ipaddress.IPv4Address):
        raise line.error(f"a count of {count} with an IPv6 address", "ranges are for IPv4; give one line for each")
    if ip.packed[3] + count - 1 > 254:
        raise line.error(f"{count} addresses from {ip} run past its last byte", "the last byte counts up to 254")
    return [MapEntry(first + step, str(ip + step), line.number) for step in range(count)]


def _whole(line: _Line, word: str, low: int, high: int, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", word) or not low <= int(word) <= high:
        raise line.error(f"{ascii(word[:40])} is no {what}", f"{what}: {low} to {high}")
    return int(word)


def _address(line: _Line, host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        if not _NAME.fullmatch(host) or re.fullmatch(r"[0-9.]+", host):
            raise line.error(f"{ascii(host[:64])} is neither an address nor a host name") from None
        return None
    if ip.is_unspecified or ip.is_multicast:
        raise line.error(f"{ip} is not the address of one machine")
    return ip
