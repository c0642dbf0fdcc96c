"""What the KubeRay operator (1.7) does with a manifest, restated: its schema, its rules, and the pods that it makes.

The schema is that of its CRDs, made strict so that a misspelt field is an error. The rules are those of its
`validation.go` that a schema cannot express, as far as they concern our manifests. The pods are those of its `pod.go`.
"""

import copy
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

CRDS = Path(os.environ.get("SWEEP_KUBERAY_CRDS", Path(__file__).parents[3] / "shared" / "kuberay"))
"""The folder of KubeRay's CRDs; they are not ours to redistribute."""

LONGEST_CLUSTER_NAME = 53
LONGEST_JOB_NAME = LONGEST_CLUSTER_NAME - 6

Document = dict[str, Any]


@functools.cache
def _validator(kind: str) -> Any:
    files = {"RayJob": "ray.io_rayjobs.yaml", "RayCluster": "ray.io_rayclusters.yaml"}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # these files are large
    crd = yaml.load((CRDS / files[kind]).read_text(), loader)
    [schema] = [each["schema"]["openAPIV3Schema"] for each in crd["spec"]["versions"] if each["name"] == "v1"]
    schema["properties"]["metadata"] = {"type": "object"}  # the API server's own
    return jsonschema.Draft202012Validator(_strict(schema))


def _strict(schema: Any) -> Any:
    """The schema, refusing fields that it does not know; int-or-string fields take both."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        made["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return made


def schema_problems(document: Document) -> list[str]:
    """Where a RayJob or RayCluster violates its CRD."""
    return [f"{error.json_path}: {error.message}" for error in _validator(document["kind"]).iter_errors(document)]


def operator_problems(document: Document) -> list[str]:
    """What the operator would refuse, or would not do as we want, though the schema allows it."""
    spec, name = document["spec"], document["metadata"]["name"]
    job = document["kind"] == "RayJob"
    cluster = spec["rayClusterSpec"] if job else spec
    longest = LONGEST_JOB_NAME if job else LONGEST_CLUSTER_NAME
    found = []
    if len(name) > longest or not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name):
        found.append(f"name {name!r}: not a DNS-1035 label of at most {longest} characters")
    return found + (_job_problems(spec) if job else []) + _cluster_problems(cluster)


def _job_problems(spec: Document) -> list[str]:
    found = []
    if spec.get("ttlSecondsAfterFinished", 0) < 0:
        found.append("ttlSecondsAfterFinished is negative")
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        found.append("ttlSecondsAfterFinished needs shutdownAfterJobFinishes")
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        found.append("suspend needs shutdownAfterJobFinishes")
    if spec.get("clusterSelector") and (spec.get("suspend") or spec.get("backoffLimit")):
        found.append("clusterSelector excludes suspend and backoffLimit")
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(key, 1) <= 0:
            found.append(f"{key} must be positive")
    if spec.get("backoffLimit", 0) < 0:
        found.append("backoffLimit is negative")
    if spec.get("submissionMode") == "SidecarMode" and ({"submitterPodTemplate", "submitterConfig"} & set(spec)):
        found.append("SidecarMode excludes submitterPodTemplate and submitterConfig")
    if spec.get("submissionMode") == "InteractiveMode" and spec.get("backoffLimit"):
        found.append("InteractiveMode excludes backoffLimit")
    if "$" in spec["entrypoint"] or "`" in spec["entrypoint"]:
        found.append("entrypoint: the submitter's shell would expand it")
    if spec["rayClusterSpec"].get("upgradeStrategy"):
        found.append("upgradeStrategy belongs to clusters that no job makes")
    if spec["rayClusterSpec"].get("authOptions", {}).get("enableK8sTokenAuth"):
        found.append("enableK8sTokenAuth is not for jobs")
    return found


def _cluster_problems(cluster: Document) -> list[str]:
    found, auto = [], bool(cluster.get("enableInTreeAutoscaling"))
    if cluster.get("authOptions", {}).get("mode") != "token":
        found.append("authOptions: no token")
    version = tuple(map(int, cluster.get("rayVersion", "0").split(".")))
    if version < (2, 52, 0):
        found.append("rayVersion: token authentication needs 2.52.0 or later")
    for gated in ("networkPolicy", "tlsOptions", "historyServerOptions"):
        if gated in cluster:
            found.append(f"{gated}: behind a feature gate that is off by default")
    names = [group["groupName"] for group in cluster["workerGroupSpecs"]]
    if len(set(names)) < len(names):
        found.append("workerGroupSpecs: two groups have one name")
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        where = group.get("groupName", "head")
        params = group.get("rayStartParams", {})
        if not group["template"]["spec"].get("containers"):
            found.append(f"{where}: no container")
        if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(params):
            found.append(f"{where}: resources are in rayStartParams too")
        if "labels" in params:
            found.append(f"{where}: labels do not belong in rayStartParams")
        if any(not isinstance(value, str) for value in params.values()):
            found.append(f"{where}: rayStartParams must be text")
        v2 = auto and cluster.get("autoscalerOptions", {}).get("version") == "v2"
        if v2 and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            found.append(f"{where}: autoscaler v2 needs restartPolicy Never")
        if auto and group.get("suspend"):
            found.append(f"{where}: the autoscaler excludes suspend")
    for group in cluster["workerGroupSpecs"]:
        least, most = group.get("minReplicas"), group.get("maxReplicas")
        if most is None:
            found.append(f"{group['groupName']}: no maxReplicas, which then is 2147483647")
        elif not 0 <= (least or 0) <= most:
            found.append(f"{group['groupName']}: minReplicas {least}, maxReplicas {most}")
        if not auto and (least is None or group.get("replicas") is None):
            found.append(f"{group['groupName']}: without the autoscaler minReplicas and replicas are needed")
        if auto and "replicas" in group:
            found.append(f"{group['groupName']}: replicas is the autoscaler's to say")
    names = {variable["name"] for variable in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]}
    if "RAY_enable_autoscaler_v2" in names:
        found.append("RAY_enable_autoscaler_v2: autoscalerOptions.version says it")
    if cluster["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        found.append('head: num-cpus is not "0", so that arrays would be trained there')
    return found


def pods(document: Document) -> Iterator[Document]:
    """The pods that the operator makes from a RayJob or RayCluster: submitter, head, one worker of each group."""
    spec, name = document["spec"], document["metadata"]["name"]
    if document["kind"] == "RayJob":
        template = copy.deepcopy(spec["submitterPodTemplate"])
        container = template["spec"]["containers"][0]
        container["command"], container["args"] = ["/bin/bash", "-ce", "--"], [submit_command(spec["entrypoint"])]
        container["env"] = container.get("env", []) + _token(name)
        yield _pod(template, f"{name}-submitter")
        spec, name = spec["rayClusterSpec"], f"{name}-12345"
    yield _head(spec, name)
    for group in spec["workerGroupSpecs"]:
        template = copy.deepcopy(group["template"])
        _ray_container(template, name, start_command(group, f"{name}-head-svc:6379"))
        first = template["spec"]["containers"][0]
        wait = {key: first[key] for key in ("image", "imagePullPolicy", "securityContext", "env", "volumeMounts")}
        small = {"cpu": "200m", "memory": "256Mi"}
        wait |= {"name": "wait-gcs-ready", "command": ["/bin/bash", "-c", "--"], "args": ["until ray health-check"]}
        template["spec"]["initContainers"] = [wait | {"resources": {"limits": small, "requests": small}}]
        yield _pod(template, f"{name}-{group['groupName']}-worker")


def _head(spec: Document, name: str) -> Document:
    template = copy.deepcopy(spec["headGroupSpec"]["template"])
    _ray_container(template, name, head_command(spec))
    if spec.get("enableInTreeAutoscaling"):
        options, ray = spec.get("autoscalerOptions", {}), template["spec"]["containers"][0]
        small = {"cpu": "500m", "memory": "512Mi"}
        container = {
            "name": "autoscaler",
            "image": options.get("image", ray["image"]),
            "imagePullPolicy": options.get("imagePullPolicy", "IfNotPresent"),
            "command": ["/bin/bash", "-c", "--"],
            "args": ["ray kuberay-autoscaler"],
            "env": _token(name) + options.get("env", []),
            "resources": options.get("resources", {"limits": small, "requests": small}),
            "volumeMounts": [*options.get("volumeMounts", []), {"name": "ray-logs", "mountPath": "/tmp/ray"}],
        }
        if "securityContext" in options:
            container["securityContext"] = options["securityContext"]
        ray["volumeMounts"].append({"name": "ray-logs", "mountPath": "/tmp/ray"})
        template["spec"]["containers"].append(container)
        template["spec"]["volumes"].append({"name": "ray-logs", "emptyDir": {}})
        template["spec"]["restartPolicy"] = "Never"
        template["spec"].setdefault("serviceAccountName", name)
    return _pod(template, f"{name}-head")


def _ray_container(template: Document, cluster: str, command: str) -> None:
    container = template["spec"]["containers"][0]
    container["command"], container["args"] = ["/bin/bash", "-c", "--"], [f"ulimit -n 65536; {command}"]
    container["env"] = container.get("env", []) + _token(cluster)
    probe = {"httpGet": {"path": "/api/healthz", "port": 52365}, "timeoutSeconds": 5, "failureThreshold": 120}
    container.setdefault("livenessProbe", probe)
    container.setdefault("readinessProbe", probe)
    container.setdefault("volumeMounts", []).append({"name": "shared-mem", "mountPath": "/dev/shm"})
    memory = container.get("resources", {}).get("limits", {}).get("memory")
    shared = {"medium": "Memory", **({"sizeLimit": memory} if memory else {})}
    template["spec"].setdefault("volumes", []).append({"name": "shared-mem", "emptyDir": shared})


def _token(cluster: str) -> list[Document]:
    secret = {"secretKeyRef": {"name": cluster, "key": "auth_token"}}
    return [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "valueFrom": secret}]


def _pod(template: Document, name: str) -> Document:
    metadata = template.get("metadata", {}) | {"name": name, "namespace": "sweep"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def head_command(cluster: Document) -> str:
    """The `ray start` command of a cluster's head; its autoscaler, if it has one, is a process of its own."""
    monitor = {"no-monitor": "true"} if cluster.get("enableInTreeAutoscaling") else {}
    group = cluster["headGroupSpec"]
    return start_command(group | {"rayStartParams": group.get("rayStartParams", {}) | monitor})


def start_command(group: Document, head: str | None = None) -> str:
    """The `ray start` command of a worker or, without the head's address, of a head."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    params: dict[str, str] = dict(group.get("rayStartParams", {}))
    params.setdefault(*(("address", head) if head else ("dashboard-host", "0.0.0.0")))
    params.setdefault("metrics-export-port", "8080")
    params.setdefault("dashboard-agent-listen-port", "52365")
    params.setdefault("num-cpus", str(-(-_millis(limits["cpu"]) // 1000)))
    params.setdefault("memory", str(_bytes(limits["memory"])))
    if "nvidia.com/gpu" in limits:
        params.setdefault("num-gpus", limits["nvidia.com/gpu"])
    params["block"] = "true"
    words = [f"--{key}" if value == "true" else f"--{key}={value}" for key, value in sorted(params.items())]
    return " ".join(["ray start", *(["--head"] if head is None else []), *words])


def submit_command(entrypoint: str, address: str = "http://127.0.0.1:8265", job: str = "sweep-job") -> str:
    """The command of the pod that submits a job and follows its log."""
    where = f"--address {address}"
    submit = f"ray job submit {where} --no-wait --submission-id {job} -- {entrypoint} ;"
    status = f"ray job status {where} {job} >/dev/null 2>&1 ;"
    return f"if ! {status} then {submit} fi ; ray job logs {where} --follow {job}"


def _millis(quantity: str) -> int:
    return int(quantity[:-1]) if quantity.endswith("m") else int(float(quantity) * 1000)


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMGT]i)?", quantity).groups()  # type: ignore[union-attr]
    return int(number) * 1024 ** (" KMGT".index(unit[0]) if unit else 0)
