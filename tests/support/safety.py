"""What our manifests promise about safety: of pods as Kubernetes runs them, of secrets, and of who may call whom."""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]

SECRET_NAME = re.compile(r"(?i)(secret|password|passwd|token$|api_?key|access_?key|credential)")
SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|gh[pousr]_[A-Za-z0-9]{36}|AIza[\w-]{35}")
MAY_CALL_THE_API = "head"
"""The component whose pods may hold a token of the API server, for the autoscaler that is among them."""


def pod_problems(pod: Document) -> list[str]:
    """Where a pod may do, hold or use more than it has to."""
    spec, name, found = pod["spec"], pod["metadata"]["name"], []
    outer = spec.get("securityContext", {})
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        found.append(f"{name}: shares the host's namespaces")
    if outer.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append(f"{name}: seccompProfile is not RuntimeDefault")
    component = pod["metadata"].get("labels", {}).get("app.kubernetes.io/component")
    has_autoscaler = any(container["name"] == "autoscaler" for container in spec["containers"])
    if spec.get("automountServiceAccountToken", True) and not (component == MAY_CALL_THE_API and has_autoscaler):
        found.append(f"{name}: holds a token of the API server")
    if "podAntiAffinity" in spec.get("affinity", {}):
        found.append(f"{name}: avoids nodes with pods of its kind (podAntiAffinity)")
    if any("hostPath" in volume for volume in spec.get("volumes", [])):
        found.append(f"{name}: mounts a path of its node")
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        found += [f"{name}/{container['name']}: {words}" for words in _container_problems(container, outer)]
    return found


def _container_problems(container: Document, outer: Document) -> Iterator[str]:
    inner = container.get("securityContext", {})
    both = {**outer, **inner}
    if not both.get("runAsNonRoot") or both.get("runAsUser", 0) == 0:
        yield "may run as root"
    if inner.get("allowPrivilegeEscalation") is not False or inner.get("privileged"):
        yield "may gain privileges"
    if inner.get("capabilities", {}).get("drop") != ["ALL"] or inner.get("capabilities", {}).get("add"):
        yield "keeps capabilities"
    if not inner.get("readOnlyRootFilesystem"):
        yield "may write to its root file system"
    for kind in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            if resource not in container.get("resources", {}).get(kind, {}):
                yield f"no {kind}.{resource}"
    mounted = {mount["mountPath"] for mount in container.get("volumeMounts", [])}
    for place in ("/tmp", "/home/sweep"):
        if place not in mounted:
            yield f"nothing writable at {place}"


def secret_problems(document: Document) -> list[str]:
    """Where an object holds what only a Secret of the cluster may."""
    kind, name = document["kind"], document["metadata"]["name"]
    found = [f"{kind} {name}: a Secret"] if kind == "Secret" else []
    for where, value in _texts(document):
        if SECRET_VALUE.search(value):
            found.append(f"{kind} {name}: {where} looks like a key")
    for variable in _variables(document):
        if SECRET_NAME.search(variable["name"]) and variable.get("value"):
            found.append(f"{kind} {name}: the value of {variable['name']} stands in the manifest")
    return found


def _texts(node: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict | list):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _texts(child, f"{where}.{key}")
    elif isinstance(node, str):
        yield where, node


def _variables(node: Any) -> Iterator[Document]:
    if isinstance(node, dict):
        yield from (each for each in node.get("env", []) if isinstance(each, dict))
        for child in node.values():
            yield from _variables(child)
    elif isinstance(node, list):
        for child in node:
            yield from _variables(child)


def may_talk(policies: list[Document], source: Document | str, target: Document | str, port: int) -> bool:
    """Whether NetworkPolicies let one pod talk to another; both sides must. An address stands for the world outside.

    A pod is `{"labels": …, "namespace": …}`; namespaces have the label that Kubernetes gives them.
    """
    return _lets(policies, "Egress", source, target, port) and _lets(policies, "Ingress", target, source, port)


def _lets(policies: list[Document], way: str, mine: Document | str, other: Document | str, port: int) -> bool:
    if isinstance(mine, str):
        return True
    about = [
        policy["spec"]
        for policy in policies
        if way in policy["spec"]["policyTypes"]
        and policy["metadata"].get("namespace", "sweep") == mine["namespace"]
        and _selects(policy["spec"]["podSelector"], mine["labels"])
    ]
    side = "to" if way == "Egress" else "from"
    rules = [rule for spec in about for rule in spec.get(way.lower(), [])]
    return not about or any(_matches(rule, side, mine, other, port) for rule in rules)


def _matches(rule: Document, side: str, mine: Document, other: Document | str, port: int) -> bool:
    ports = rule.get("ports")
    if ports is not None and port not in [each["port"] for each in ports]:
        return False
    return side not in rule or any(_is_peer(peer, mine, other) for peer in rule[side])


def _is_peer(peer: Document, mine: Document, other: Document | str) -> bool:
    if isinstance(other, str):
        block = peer.get("ipBlock")
        address = ipaddress.ip_address(other)
        excepted = [ipaddress.ip_network(each) for each in (block or {}).get("except", [])]
        return (
            bool(block) and address in ipaddress.ip_network(block["cidr"]) and not any(address in e for e in excepted)
        )
    if "ipBlock" in peer:
        return False
    spaces = {"kubernetes.io/metadata.name": other["namespace"]}
    in_space = _selects(peer["namespaceSelector"], spaces) if "namespaceSelector" in peer else None
    if in_space is None:
        in_space = other["namespace"] == mine["namespace"]
    return in_space and _selects(peer.get("podSelector", {}), other["labels"])


def _selects(selector: Document, labels: dict[str, str]) -> bool:
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions), "not restated"
    return exact and all(labels.get(each["key"]) in each["values"] for each in expressions)
