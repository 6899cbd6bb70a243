"""Where to listen by default: private addresses of the interfaces that are up, never a public one."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from typing import NamedTuple

from omcore.trust.tokens import join_address

DEFAULT_PORT = 4632  # unassigned at IANA (4622-4645 are); the next 13 are tried when it is taken
_RTM_NEWADDR, _RTM_GETADDR, _NLMSG_ERROR, _NLMSG_DONE = 20, 22, 2, 3
_NLM_F_REQUEST_DUMP = 0x301
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 1
_NOT_OURS = ("lo", "docker", "br-", "veth", "virbr", "vnet", "cni", "flannel", "cali", "lxc", "lxd", "podman", "kube")
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "fc00::/7")
)


def is_private(address: str) -> bool:
    """Whether strangers on the Internet cannot reach this address: RFC 1918, ULA, IPv4 link-local, 100.64/10."""
    ip = ipaddress.ip_address(address)
    return any(ip.version == network.version and ip in network for network in _PRIVATE)


def default_listen(port: int = DEFAULT_PORT) -> tuple[str, ...]:
    """ "host:port" for each private address of an interface that is up and belongs to the machine itself."""
    return tuple(
        join_address(address, port)
        for name, address in interface_addresses()
        if not name.startswith(_NOT_OURS) and is_private(address) and _is_up(name)
    )


def public_addresses() -> tuple[str, ...]:
    """Addresses that `default_listen` leaves out because they must be named by the user."""
    return tuple(
        address
        for name, address in interface_addresses()
        if not name.startswith(_NOT_OURS) and ipaddress.ip_address(address).is_global
    )


def interface_addresses() -> tuple[tuple[str, str], ...]:
    """(interface, address) of this network namespace."""
    return tuple((entry.interface, entry.address) for entry in interface_entries())


class InterfaceEntry(NamedTuple):
    """One address of an interface; `prefix`: how many of its bits are the network's."""

    interface: str
    link: int  # its number
    address: str
    prefix: int


def interface_entries() -> tuple[InterfaceEntry, ...]:
    """All addresses of this network namespace, asked of the kernel by netlink (no ctypes, no psutil)."""
    found: list[InterfaceEntry] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(2.0)
        request = struct.pack("=IHHII8x", 24, _RTM_GETADDR, _NLM_F_REQUEST_DUMP, 1, 0)
        netlink.send(request)
        while True:
            data = netlink.recv(1 << 17)
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR) or length < 16:
                    return tuple(found)
                if kind == _RTM_NEWADDR:
                    entry = _address(data[16:length])
                    if entry and entry not in found:
                        found.append(entry)
                data = data[(length + 3) & ~3 :]


def _address(message: bytes) -> InterfaceEntry | None:
    family, index = message[0], struct.unpack_from("=I", message, 4)[0]
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    attributes: dict[int, bytes] = {}
    position = 8
    while position + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, position)
        if length < 4:
            break
        attributes[kind] = message[position + 4 : position + length]
        position += (length + 3) & ~3
    packed = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS, b""))  # LOCAL is ours, ADDRESS may be the peer's
    try:
        return InterfaceEntry(socket.if_indextoname(index), index, socket.inet_ntop(family, packed), message[1])
    except (OSError, ValueError):  # the interface went away meanwhile
        return None


def _is_up(name: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        request = struct.pack("16sH14x", name.encode()[:15], 0)
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, request)
        except OSError:
            return False
    return bool(struct.unpack_from("16sH", answer)[1] & _IFF_UP)
