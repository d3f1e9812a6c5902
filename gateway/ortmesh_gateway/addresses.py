"""Address: where something listens, `host:port` or a Unix socket, as Envoy and gRPC write it. Stage: gateway."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ortmesh.config import check_address, check_backend
from ortmesh.front.address import claim as claim_socket


@dataclass(frozen=True, slots=True)
class Address:
    """Either `host` and `port`, or `path`."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads `host:port`, `[::1]:port` or `unix:/path`. ValueError says what was expected."""
        check_address(text)
        if text.startswith("unix:"):
            return cls(path=text.removeprefix("unix:"))
        host, _, port = text.rpartition(":")
        return cls(host=host.removeprefix("[").removesuffix("]"), port=int(port))

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_name(self) -> bool:
        """True for a host that must be resolved."""
        if self.path:
            return False
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False

    def for_envoy(self) -> dict[str, Any]:
        """Envoy's `core.v3.Address`."""
        if self.path:
            return {"pipe": {"path": self.path}}
        return {"socket_address": {"address": self.host, "port_value": self.port}}


def by_family(backends: Iterable[str]) -> dict[str, tuple[Address, ...]]:
    """Groups `family=address` pairs by family, in their order. ValueError names the pair that is none."""
    found: dict[str, tuple[Address, ...]] = {}
    for backend in backends:
        family, _, address = check_backend(backend).partition("=")
        found[family] = (*found.get(family, ()), Address.parse(address))
    return found


async def resolve(address: Address) -> Address:
    """The same with a number in the place of a host's name, of IPv4 if there is one: Envoy listens on numbers only.

    OSError when nobody knows the name.
    """
    return (await resolve_all(address))[0]


async def resolve_all(address: Address) -> tuple[Address, ...]:
    """Every number that a host's name means, those of IPv4 where there are any, as Envoy takes them.

    OSError when nobody knows the name.
    """
    if not address.is_name:
        return (address,)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(f"cannot resolve {address}: {error.strerror}") from None
    family = min((each[0] for each in found), key=lambda each: each != socket.AF_INET)
    return tuple(dict.fromkeys(replace(address, host=str(each[4][0])) for each in found if each[0] == family))


def claim(address: Address) -> None:
    """Makes sure that a process can listen there. OSError says who or what is in the way.

    The file of a socket on which nobody listens any more is removed.
    """
    if address.path:
        claim_socket(str(address))
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise OSError(f"cannot listen on {address}: {error.strerror}") from None
