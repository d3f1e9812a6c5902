"""NetworkPolicies, worked out as their specification says: whether a pod may connect to another's port."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from tests.deploy.manifests import Json, Objects, selects


@dataclass(frozen=True, slots=True)
class Pod:
    """One end of a connection; without a namespace it is outside the cluster, or a node."""

    namespace: str
    labels: dict[str, str]
    ports: dict[str, int] = field(default_factory=dict)
    address: str = "10.0.0.1"

    @property
    def namespace_labels(self) -> dict[str, str]:
        """What Kubernetes itself writes on every namespace."""
        return {"kubernetes.io/metadata.name": self.namespace}


def allowed(objects: Objects, source: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
    """True when the source's policies let it out and the target's let it in."""
    return _lets(objects, "Egress", source, target, target, port, protocol) and _lets(
        objects, "Ingress", target, source, target, port, protocol
    )


def _lets(objects: Objects, way: str, own: Pod, other: Pod, target: Pod, port: int, protocol: str) -> bool:
    """A pod that no policy means is open; else one rule of one of them must fit."""
    policies = [
        each["spec"]
        for each in objects.of("NetworkPolicy")
        if own.namespace == each["metadata"]["namespace"]
        and selects(each["spec"]["podSelector"], own.labels)
        and way in each["spec"]["policyTypes"]
    ]
    if not policies:
        return True
    peers, rules = ("from", "ingress") if way == "Ingress" else ("to", "egress")
    return any(
        _is_peer(rule.get(peers), own, other) and _is_port(rule.get("ports"), target, port, protocol)
        for policy in policies
        for rule in policy.get(rules) or []
    )


def _is_peer(peers: list[Json] | None, own: Pod, other: Pod) -> bool:
    return not peers or any(_fits(peer, own, other) for peer in peers)


def _fits(peer: Json, own: Pod, other: Pod) -> bool:
    """`podSelector` alone means the policy's own namespace; no selector means a pod outside the cluster."""
    if "ipBlock" in peer:
        return ipaddress.ip_address(other.address) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        in_namespace = selects(peer["namespaceSelector"], other.namespace_labels)
    else:
        in_namespace = other.namespace == own.namespace
    return in_namespace and selects(peer.get("podSelector", {}), other.labels)


def _is_port(ports: list[Json] | None, target: Pod, port: int, protocol: str) -> bool:
    """A port's name is that of the target's container."""
    return not ports or any(
        each.get("protocol", "TCP") == protocol and target.ports.get(str(each["port"]), each["port"]) == port
        for each in ports
    )
