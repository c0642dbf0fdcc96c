"""The manifests of `k8s/` and those that `sweep kubernetes` makes of them, checked without a cluster.

Every check is also seen failing, on a manifest that is broken on purpose.
"""

import contextlib
import copy
import dataclasses
import functools
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support import kuberay, safety

from sweep import cli, plan
from sweep.common.errors import InputError
from sweep.data.library import Library
from sweep.kubernetes import kubectl, manifests
from sweep.kubernetes.manifests import OVERLAYS, DeploymentOptions, Source
from sweep.networks.conv.native import build as native
from sweep.space.search_space import parse

ROOT = Path(__file__).parents[2]
WIDTH = ROOT / "search_spaces" / "width.yaml"
KUBERNETES = "1.32"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl builds the manifests: there is none"),
]
needs_crds = pytest.mark.skipif(
    not (kuberay.CRDS / "ray.io_rayjobs.yaml").is_file(),
    reason=f"KubeRay's CRDs are not in {kuberay.CRDS}; SWEEP_KUBERAY_CRDS names their folder",
)

Document = dict[str, Any]


@functools.cache
def overlay(name: str) -> tuple[Document, ...]:
    return tuple(yaml.safe_load_all(kubectl.build(ROOT / "k8s" / "overlays" / name)))


def library(folder: Path | None = None) -> Library:
    return Library(folder or Path("/nonexistent"), downloads=False)


@functools.cache
def made(name: str, store: str | None, text: str | None = None) -> manifests.Manifests:
    source = manifests.read(WIDTH) if text is None else source_of(text)
    return manifests.manifests(source, DeploymentOptions(name, "registry.example.com/sweep:1", store), library())


def source_of(text: str, name: str = "some.yaml") -> Source:
    return Source(parse(text.encode(), Path(name)), text.encode())


def ray(documents: Any) -> Document:
    [found] = [each for each in documents if each["kind"] in ("RayJob", "RayCluster")]
    return found


def cluster(documents: Any) -> Document:
    found = ray(documents)
    inner: Document = found["spec"]["rayClusterSpec"] if found["kind"] == "RayJob" else found["spec"]
    return inner


def core_problems(document: Document) -> list[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{document['kind']}: {error.message}"]
    return []


def problems(documents: Any) -> list[str]:
    """All that any check finds, but for the CRDs' schema."""
    found = []
    for document in documents:
        found += safety.secret_problems(document)
        if document["kind"] in ("RayJob", "RayCluster"):
            found += kuberay.operator_problems(document)
            for pod in kuberay.pods(document):
                found += core_problems(pod) + safety.pod_problems(pod)
        else:
            found += core_problems(document)
        if "Role" in document["kind"]:
            found.append(
                f"{document['kind']}: the operator grants what the autoscaler needs, and nothing else is needed"
            )
    return found


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_passes_every_check(name: str) -> None:
    assert problems(overlay(name)) == []


@needs_crds
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_is_as_kuberays_crds_say(name: str) -> None:
    assert kuberay.schema_problems(ray(overlay(name))) == []


@pytest.mark.parametrize(
    ("name", "store"),
    [("cpu", "s3://bucket/sweeps"), ("kueue", "pvc://claim/a/b"), ("shared-cluster", "gs://bucket/sweeps")],
)
def test_printed_manifests_pass_every_check(name: str, store: str) -> None:
    documents = made(name, store).documents
    assert problems(documents) == []
    if (kuberay.CRDS / "ray.io_rayjobs.yaml").is_file():
        assert kuberay.schema_problems(ray(documents)) == []
    assert {each["metadata"]["namespace"] for each in documents} == {"sweep"}


Break = Callable[[Document], None]


def head(job: Document) -> Document:
    spec: Document = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    return spec


def group(job: Document) -> Document:
    found: Document = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    return found


BROKEN: dict[str, tuple[Break, str]] = {
    "no maxReplicas": (lambda job: group(job).pop("maxReplicas"), "no maxReplicas"),
    "more at least than at most": (lambda job: group(job).update(minReplicas=9), "minReplicas 9, maxReplicas 8"),
    "replicas beside an autoscaler": (lambda job: group(job).update(replicas=1), "the autoscaler's to say"),
    "root": (lambda job: head(job)["securityContext"].update(runAsUser=0), "head/ray-head: may run as root"),
    "maybe root": (
        lambda job: (
            head(job)["securityContext"].pop("runAsNonRoot"),
            head(job)["containers"][0]["securityContext"].pop("runAsNonRoot"),
        ),
        "may run as root",
    ),
    "a secret in a variable": (
        lambda job: head(job)["containers"][0]["env"].append({"name": "AWS_SECRET_ACCESS_KEY", "value": "abc"}),
        "the value of AWS_SECRET_ACCESS_KEY stands in the manifest",
    ),
    "a key anywhere": (lambda job: job["spec"].update(metadata={"a": "AKIA" + 16 * "Q"}), "looks like a key"),
    "privileges": (
        lambda job: head(job)["containers"][0]["securityContext"].update(allowPrivilegeEscalation=True),
        "may gain privileges",
    ),
    "capabilities": (
        lambda job: head(job)["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
        "keeps capabilities",
    ),
    "a root file system": (
        lambda job: job["spec"]["rayClusterSpec"]["autoscalerOptions"]["securityContext"].pop("readOnlyRootFilesystem"),
        "autoscaler: may write to its root file system",
    ),
    "nothing writable": (
        lambda job: job["spec"]["rayClusterSpec"]["autoscalerOptions"].update(volumeMounts=[]),
        "autoscaler: nothing writable at /tmp",
    ),
    "no seccomp": (lambda job: head(job)["securityContext"].pop("seccompProfile"), "seccompProfile"),
    "no limits": (
        lambda job: job["spec"]["submitterPodTemplate"]["spec"]["containers"][0]["resources"].pop("limits"),
        "submitter: no limits.memory",
    ),
    "a token for workers": (
        lambda job: group(job)["template"]["spec"].update(automountServiceAccountToken=True),
        "holds a token of the API server",
    ),
    "pods that keep apart": (
        lambda job: group(job)["template"]["spec"].update(
            affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}}
        ),
        "podAntiAffinity",
    ),
    "the node's disk": (
        lambda job: head(job)["volumes"].append({"name": "disk", "hostPath": {"path": "/"}}),
        "mounts a path of its node",
    ),
    "a misspelt field of a pod": (
        lambda job: head(job)["containers"][0].update(imagePulPolicy="Always"),
        "imagePulPolicy",
    ),
    "a number where text belongs": (
        lambda job: head(job)["containers"][0]["env"].append({"name": "A", "value": 1}),
        "1 is not",
    ),
    "no token authentication": (
        lambda job: job["spec"]["rayClusterSpec"]["authOptions"].update(mode="disabled"),
        "authOptions: no token",
    ),
    "a Ray without tokens": (lambda job: job["spec"]["rayClusterSpec"].update(rayVersion="2.51.0"), "rayVersion"),
    "arrays on the head": (
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].pop("num-cpus"),
        'num-cpus is not "0"',
    ),
    "a long name": (lambda job: job["metadata"].update(name="s" * 48), "DNS-1035"),
    "a name with capitals": (lambda job: job["metadata"].update(name="Sweep"), "DNS-1035"),
    "a time to live, but no shutdown": (
        lambda job: job["spec"].update(shutdownAfterJobFinishes=False),
        "ttlSecondsAfterFinished needs shutdownAfterJobFinishes",
    ),
    "no deadline": (lambda job: job["spec"].update(activeDeadlineSeconds=0), "activeDeadlineSeconds must be"),
    "a shell variable": (
        lambda job: job["spec"].update(entrypoint='sweep launch a.yaml --store "$SWEEP_STORE"'),
        "the submitter's shell would expand it",
    ),
    "restarts under autoscaler v2": (
        lambda job: group(job)["template"]["spec"].update(restartPolicy="Always"),
        "autoscaler v2 needs restartPolicy Never",
    ),
    "a feature behind a gate": (
        lambda job: job["spec"]["rayClusterSpec"].update(networkPolicy={"mode": "DenyAll"}),
        "behind a feature gate",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_checks_name_what_is_broken(case: str) -> None:
    job, (broken, words) = copy.deepcopy(ray(overlay("gpu"))), BROKEN[case]
    broken(job)
    assert any(words in problem for problem in problems([job])), problems([job])


@needs_crds
@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda job: job["spec"].update(ttlSecondsAfterFinnished=1), "ttlSecondsAfterFinnished"),
        (lambda job: group(job).update(maxReplica=group(job).pop("maxReplicas")), "'maxReplicas' is a required"),
        (lambda job: job["spec"]["rayClusterSpec"]["autoscalerOptions"].update(version="v3"), "'v3' is not one of"),
        (lambda job: head(job)["containers"][0]["securityContext"].update(runAsNonroot=True), "runAsNonroot"),
        (lambda job: job["spec"].update(backoffLimit="3"), "'3' is not of type 'integer'"),
    ],
)
def test_the_crds_refuse_what_is_misspelt_or_missing(broken: Break, words: str) -> None:
    job = copy.deepcopy(ray(overlay("gpu")))
    broken(job)
    assert any(words in problem for problem in kuberay.schema_problems(job))


def test_a_secret_and_a_role_would_be_found() -> None:
    metadata = {"name": "a", "namespace": "b"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"a": "b"}}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": []}
    assert problems([secret]) and problems([role])
    assert core_problems({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "datas": {}})


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name != "shared-cluster"])
def test_a_job_ends_and_goes_on_by_itself(name: str) -> None:
    spec = ray(overlay(name))["spec"]
    assert spec["shutdownAfterJobFinishes"] and spec["ttlSecondsAfterFinished"] > 0
    assert spec["activeDeadlineSeconds"] > 0 and spec["preRunningDeadlineSeconds"] > 0 and spec["backoffLimit"] > 0
    assert spec["entrypoint"].startswith("sweep launch /etc/sweep/space.yaml --address auto")


def test_autoscaler_goes_from_none_to_a_stated_number_of_gpus_but_for_a_queue() -> None:
    for name in ("gpu", "gpu-spot", "shared-cluster"):
        spec = cluster(overlay(name))
        [workers] = spec["workerGroupSpecs"]
        assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
        assert (workers["minReplicas"], workers["maxReplicas"]) == (0, 8)
        resources = workers["template"]["spec"]["containers"][0]["resources"]
        assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
        assert {each["key"] for each in workers["template"]["spec"]["tolerations"]} >= {"nvidia.com/gpu"}
    queued = ray(overlay("kueue"))
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "sweep"
    assert not cluster([queued])["enableInTreeAutoscaling"]
    assert "autoscalerOptions" not in cluster([queued])


def test_spot_workers_have_time_for_a_checkpoint_and_the_head_stays_off_spot_nodes() -> None:
    from sweep.common.fault_options import FaultOptions

    spec = cluster(overlay("gpu-spot"))
    worker, first = spec["workerGroupSpecs"][0]["template"]["spec"], spec["headGroupSpec"]["template"]["spec"]
    [_, seconds] = worker["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert FaultOptions.checkpoint_seconds + 10 < int(seconds) < worker["terminationGracePeriodSeconds"] - 20
    terms = first["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    [expressions] = [term["matchExpressions"] for term in terms]  # terms are ored, expressions anded
    assert all(each["operator"] in ("NotIn", "DoesNotExist") for each in expressions)
    assert "affinity" not in cluster(overlay("gpu"))["headGroupSpec"]["template"]["spec"]


def pod(component: str, instance: str = "sweep", namespace: str = "sweep") -> Document:
    labels = {"app.kubernetes.io/instance": instance, "app.kubernetes.io/component": component}
    return {"labels": labels, "namespace": namespace}


OPERATOR = {"labels": {"app.kubernetes.io/name": "kuberay-operator"}, "namespace": "kuberay-system"}
DNS = {"labels": {"k8s-app": "kube-dns"}, "namespace": "kube-system"}
INGRESS = {"labels": {"app.kubernetes.io/name": "ingress-nginx"}, "namespace": "ingress-nginx"}


def policies(documents: Any) -> list[Document]:
    return [each for each in documents if each["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_head_is_reached_from_its_own_pods_the_operator_and_a_named_ingress_alone(name: str) -> None:
    found, mine = policies(overlay(name)), pod("head")
    assert safety.may_talk(found, pod("worker"), mine, 6379)
    assert safety.may_talk(found, mine, pod("worker"), 10002)
    assert safety.may_talk(found, OPERATOR, mine, 8265) and not safety.may_talk(found, OPERATOR, mine, 6379)
    assert safety.may_talk(found, INGRESS, mine, 8265) == (name == "shared-cluster")
    assert safety.may_talk(found, pod("submitter"), mine, 8265) and (
        name == "shared-cluster" or not safety.may_talk(found, pod("submitter"), mine, 6379)
    )
    for stranger in (
        {"labels": {}, "namespace": "sweep"},
        {"labels": OPERATOR["labels"], "namespace": "elsewhere"},
        pod("worker", namespace="elsewhere"),
        pod("worker", instance="another"),
        "203.0.113.7",
    ):
        assert not safety.may_talk(found, stranger, mine, 8265)
        assert not safety.may_talk(found, stranger, pod("worker"), 10002)


@pytest.mark.parametrize("name", OVERLAYS)
def test_dns_and_the_api_server_are_allowed_and_workers_reach_nothing_else(name: str) -> None:
    found = policies(overlay(name))
    for component in ("head", "worker"):
        assert safety.may_talk(found, pod(component), DNS, 53)
        assert not safety.may_talk(found, pod(component), "169.254.169.254", 80)
    assert safety.may_talk(found, pod("head"), "10.0.0.1", 443)
    assert safety.may_talk(found, pod("head"), "192.0.2.1", 6443)
    assert not safety.may_talk(found, pod("worker"), "192.0.2.1", 443)


def test_what_a_store_or_a_data_set_needs_is_let_out() -> None:
    objects, claim = (policies(made("cpu", store).documents) for store in ("s3://bucket/sweeps", "pvc://claim/a/b"))
    name = made("cpu", "s3://bucket/sweeps").name
    assert safety.may_talk(objects, pod("worker", name), "192.0.2.1", 443)
    assert not safety.may_talk(objects, pod("worker", name), "192.0.2.1", 80)
    assert not safety.may_talk(claim, pod("worker", made("cpu", "pvc://claim/a/b").name), "192.0.2.1", 443)
    google = made("cpu", "gs://bucket/sweeps")
    assert safety.may_talk(policies(google.documents), pod("worker", google.name), "169.254.169.254", 80)
    downloading = made("cpu", "pvc://claim", "settings: {dataset: svhn}")
    found = policies(downloading.documents)
    assert safety.may_talk(found, pod("head", downloading.name), "192.0.2.1", 80)
    assert not safety.may_talk(found, pod("worker", downloading.name), "192.0.2.1", 443)


def test_two_sweeps_in_one_namespace_share_their_accounts_alone() -> None:
    one, other = made("cpu", "s3://bucket/sweeps"), made("cpu", "s3://bucket/sweeps", "name: other")
    names = [{(each["kind"], each["metadata"]["name"]) for each in found.documents} for found in (one, other)]
    assert names[0] & names[1] == {("ServiceAccount", "sweep-head"), ("ServiceAccount", "sweep-worker")}
    worker, elsewhere = pod("worker", one.name), pod("head", other.name)
    assert not safety.may_talk(policies([*one.documents, *other.documents]), worker, elsewhere, 6379)


def test_the_search_space_the_store_and_the_image_are_filled_in() -> None:
    found = made("gpu", "s3://bucket/sweeps?region=eu-north-1")
    job = ray(found.documents)
    [space] = [each for each in found.documents if each["kind"] == "ConfigMap"]
    assert space["data"] == {"width.yaml": WIDTH.read_text()} and space["immutable"]
    assert job["spec"]["entrypoint"] == "sweep launch /etc/sweep/width.yaml --address auto --gpus-per-array 1"
    [volume] = [each for each in head(job)["volumes"] if each["name"] == "space"]
    assert volume["configMap"] == {"name": space["metadata"]["name"], "optional": False}
    environment = {each["name"]: each.get("value") for each in head(job)["containers"][0]["env"]}
    assert environment["SWEEP_STORE"] == "s3://bucket/sweeps?region=eu-north-1"
    images = {container["image"] for each in kuberay.pods(job) for container in each["spec"]["containers"]}
    assert images == {"registry.example.com/sweep:1"}
    assert found.notes == ()


def test_a_claim_is_mounted_in_head_and_workers() -> None:
    job = ray(made("cpu", "pvc://claim/a/b").documents)
    for spec in (head(job), group(job)["template"]["spec"]):
        assert {"name": "store", "persistentVolumeClaim": {"claimName": "claim"}} in spec["volumes"]
        assert {"name": "store", "mountPath": "/mnt/store"} in spec["containers"][0]["volumeMounts"]
    environment = {each["name"]: each.get("value") for each in head(job)["containers"][0]["env"]}
    assert environment["SWEEP_STORE"] == "/mnt/store/a/b" and environment["SWEEP_DATA_DIR"] == "/mnt/store/data"


def test_the_cluster_is_sized_from_the_plan() -> None:
    source = manifests.read(WIDTH)
    for name, device, slots in (("gpu", "cuda", 1), ("cpu", "native", 4)):
        found = made(name, "s3://bucket/sweeps")
        arrays = list(plan.arrays(source.space, device))  # type: ignore[arg-type]
        size, job = found.sizes, ray(found.documents)
        assert size.arrays == len(arrays) and size.runs == 896
        assert size.workers == min(8, -(-len(arrays) // slots)) == group(job)["maxReplicas"]
        assert size.estimated_seconds is not None and size.deadline_seconds is not None and size.memory is not None
        assert size.deadline_seconds >= manifests.STARTUP_SECONDS + manifests.DEADLINE_FACTOR * size.estimated_seconds
        assert job["spec"]["activeDeadlineSeconds"] == size.deadline_seconds
        resources = group(job)["template"]["spec"]["containers"][0]["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"] == f"{size.memory // 2**30}Gi"
        largest = max(array.bytes for array in arrays)
        assert size.memory > slots * manifests.PROCESS_BYTES[device] + (largest if device == "native" else 0)  # type: ignore[index]
        assert job["metadata"]["annotations"]["sweep/arrays"] == str(len(arrays))


def test_more_runs_need_more_time_and_wider_nets_more_memory() -> None:
    def sizes(text: str, **options: Any) -> manifests.Sizes:
        return manifests.sizes(
            source_of(text).space, DeploymentOptions("cpu", **options), library(), cluster(overlay("cpu"))
        )

    few, many = sizes("axes: {seed: 100}", max_workers=4), sizes("axes: {seed: 10000}", max_workers=4)
    assert few.estimated_seconds and many.estimated_seconds and many.estimated_seconds > 50 * few.estimated_seconds
    assert few.deadline_seconds and many.deadline_seconds and many.deadline_seconds > few.deadline_seconds
    narrow, wide = sizes("settings: {width: 4}"), sizes("settings: {width: 1024, depth: 16}")
    assert narrow.memory and wide.memory and wide.memory > narrow.memory
    assert sizes("axes: {seed: 10000}", max_workers=3).workers == 3
    assert sizes("axes: {seed: 1}").workers == 1


def test_a_fixed_number_of_workers_is_that_number_for_a_queue() -> None:
    found = manifests.manifests(
        manifests.read(WIDTH), DeploymentOptions("kueue", "a:1", "s3://b", max_gpus=3, queue="team"), library()
    )
    job = ray(found.documents)
    assert {group(job)[key] for key in ("replicas", "minReplicas", "maxReplicas")} == {3}
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"


def test_pictures_of_unknown_shape_leave_the_sizes_to_the_overlay_and_say_so() -> None:
    found = manifests.manifests(
        source_of("settings: {dataset: 'npz:/nowhere/a.npz'}"), DeploymentOptions("cpu", "a:1", "s3://b"), library()
    )
    assert found.sizes.arrays is None and found.sizes.estimated_seconds is None
    assert group(ray(found.documents))["maxReplicas"] == 8
    assert ray(found.documents)["spec"]["activeDeadlineSeconds"] == 86400
    assert any("npz:/nowhere/a.npz" in note for note in found.notes)
    assert any("unknown here" in note for note in found.notes)


@settings(max_examples=50, deadline=None)
@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", fullmatch=True))
def test_names_are_valid_for_kubernetes_whatever_the_sweep_is_called(name: str) -> None:
    source = source_of("{}", "some.yaml")
    source = Source(source.space.model_copy(update={"name": name}), source.content)
    found = manifests.name_of(source, DeploymentOptions("cpu"))
    assert len(found) <= kuberay.LONGEST_JOB_NAME and re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", found)
    assert found != manifests.name_of(Source(source.space, b"{} # other"), DeploymentOptions("cpu"))
    assert found != manifests.name_of(source, DeploymentOptions("cpu", store="s3://elsewhere"))
    assert re.fullmatch(r"[-._a-zA-Z0-9]+", f"{name}.yaml")  # a ConfigMap's key


@pytest.mark.parametrize("name", ["A" * 64, "_", "a..b"])
def test_a_sweep_of_any_name_makes_manifests(name: str) -> None:
    found = manifests.manifests(
        source_of(json.dumps({"name": name})), DeploymentOptions("cpu", "a:1", "s3://b"), library()
    )
    assert problems(found.documents) == []


def test_a_search_space_that_a_config_map_cannot_hold_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.write_text("name: huge\n" + "# a long comment\n" * 70_000)
    with pytest.raises(InputError, match=r"huge.yaml: more than the 1,048,448 bytes .* split the search space"):
        manifests.read(path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"overlay": "tpu"}, "choose from cpu, gpu"),
        ({"namespace": "Team"}, "--namespace Team"),
        ({"image": "a b"}, "--image a b"),
        ({"image": "a:b:c"}, "--image a:b:c"),
        ({"store": "results"}, "--store results: expected a place that all pods can reach"),
        ({"store": "/mnt/x"}, "expected a place"),
        ({"store": "s3://"}, "expected a place"),
        ({"store": ""}, "is empty; expected a place"),
        ({"store": "s3://b/p#1"}, "has a fragment"),
        ({"store": "pvc://claim?x=1"}, "unknown option 'x'"),
        ({"store": "s3://KEY:HIDDEN@b"}, "--store s3://…: contains a user or a secret"),
        ({"store": "pvc://Claim"}, "expected a place"),
        ({"store": "pvc://claim/../x"}, "expected a place"),
        ({"max_gpus": 0}, "--max-gpus 0"),
        ({"overlay": "cpu", "max_gpus": 4}, "--max-workers"),
        ({"max_workers": 4}, "--max-gpus"),
        ({"queue": "team"}, "requires --overlay kueue"),
        ({"overlay": "kueue", "queue": "Team!"}, "--queue Team!"),
    ],
)
def test_bad_options_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        DeploymentOptions(**given)


@pytest.mark.parametrize(
    ("given", "image"),
    [
        ("registry.example.com:5000/team/sweep:1.0-cuda", "registry.example.com:5000/team/sweep:1.0-cuda"),
        ("registry.example.com:5000/sweep", "registry.example.com:5000/sweep:latest"),
        (f"sweep@sha256:{'a' * 64}", f"sweep@sha256:{'a' * 64}"),
        (f"sweep:1@sha256:{'a' * 64}", f"sweep@sha256:{'a' * 64}"),
    ],
)
def test_images_by_tag_and_by_digest(given: str, image: str) -> None:
    found = manifests.manifests(source_of("{}"), DeploymentOptions("cpu", given, "s3://b"), library())
    assert {each["spec"]["containers"][0]["image"] for each in kuberay.pods(ray(found.documents))} == {image}


# The command.


@dataclasses.dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str, **environment: str) -> Done:
    """`sweep kubernetes search_spaces/width.yaml …`, as the console script runs it."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, "argv", ["sweep", "kubernetes", str(WIDTH), *arguments])
        patch.setattr(cli, "_is_terminal", lambda: False)
        patch.delenv("SWEEP_STORE", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        cli.main()
    return Done(int(end.value.code or 0), out.getvalue(), err.getvalue())


def test_the_command_prints_manifests_or_writes_their_kustomization(tmp_path: Path) -> None:
    wanted = ("--overlay", "cpu", "--store", "s3://bucket/sweeps", "--image", "registry.example.com/sweep:1")
    printed = run(*wanted)
    assert printed.returncode == 0 and printed.stderr == ""
    assert printed.stdout == made("cpu", "s3://bucket/sweeps").text
    folder = tmp_path / "new" / "width"
    written = run(*wanted, "--output", str(folder))
    assert (written.returncode, written.stdout) == (
        0,
        "",
    ) and f"kubectl apply --server-side -k {folder}" in written.stderr
    assert kubectl.build(folder).rstrip() == printed.stdout.rstrip()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["width"]
    again = run(*wanted, "--output", str(folder))
    assert again.returncode == 2 and "already exists" in again.stderr
    as_json = json.loads(run(*wanted, "--json").stdout)
    assert as_json["name"] == made("cpu", "s3://bucket/sweeps").name
    assert as_json["manifests"] == made("cpu", "s3://bucket/sweeps").documents


def test_without_options_the_command_prints_and_says_what_is_assumed() -> None:
    printed = run()
    assert printed.returncode == 0 and "--image names yours" in printed.stderr and "sweep-results" in printed.stderr
    assert cluster(yaml.safe_load_all(printed.stdout))["workerGroupSpecs"][0]["groupName"] == "gpu-workers"
    assert "--queue names yours" in run("--overlay", "kueue").stderr


def test_a_failed_output_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubectl, "build", lambda _: (_ for _ in ()).throw(InputError("kubectl kustomize: no")))
    with pytest.raises(InputError):
        manifests.manifests(
            manifests.read(WIDTH), DeploymentOptions("cpu", "a:1", "s3://b"), library(), tmp_path / "out"
        )
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_one_message_and_status_2(tmp_path: Path) -> None:
    for arguments, words in [
        (("--store", "results"), "--store results"),
        (("--overlay", "cpu", "--yes"), "--yes: requires --apply"),
        (("--follow", "--json"), "--follow"),
    ]:
        done = run(*arguments)
        assert done.returncode == 2 and words in done.stderr and done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
    nowhere = run("--overlay", "cpu", PATH=str(tmp_path))
    assert nowhere.returncode == 2 and "needs kubectl" in nowhere.stderr and "Traceback" not in nowhere.stderr


def test_neither_torch_nor_ray_nor_the_store_nor_the_network_is_touched() -> None:
    program = f"""
import socket, sys
def refuse(*_): raise AssertionError("the network")
socket.socket.connect = socket.getaddrinfo = refuse
from sweep.store import rows
rows.Store.__init__ = refuse
sys.argv = ["sweep", "kubernetes", {str(WIDTH)!r}, "--store", "s3://bucket/sweeps", "--image", "a:1", "--json"]
try:
    from sweep.cli import main
    main()
except SystemExit as end:
    assert not end.code, end.code
assert not {{"torch", "ray"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"].startswith("sweep-width-")


FAKE = """#!{python}
import json, os, sys, time
from pathlib import Path
here, arguments = Path(__file__).parent, sys.argv[1:]
if arguments[0] == "kustomize":
    os.execv({real!r}, ["kubectl", *arguments])
text = sys.stdin.read() if arguments[0] == "apply" else ""
with open(here / "calls.jsonl", "a") as file:
    file.write(json.dumps([arguments, text]) + "\\n")
if arguments[:2] == ["config", "current-context"]:
    print("a-cluster")
elif arguments[0] == "apply":
    print("rayjob.ray.io/x serverside-applied")
elif arguments[0] == "get":
    states = json.loads((here / "states.json").read_text())
    (here / "states.json").write_text(json.dumps(states[1:] or states))
    if states[0] is None:
        sys.exit("error: the server is gone for a moment")
    print(json.dumps({{"status": states[0]}}))
elif arguments[0] == "logs":
    print("896 runs to train", flush=True)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A kubectl that builds manifests as the real one does, and notes all else that it is asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "kubectl").write_text(FAKE.format(python=sys.executable, real=shutil.which("kubectl")))
    (folder / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield folder


def calls(fake: Path) -> list[Any]:
    path = fake / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


APPLY = ("--overlay", "cpu", "--store", "s3://bucket/sweeps", "--image", "registry.example.com/sweep:1", "--apply")


def test_apply_hands_the_printed_manifests_to_kubectl(fake: Path) -> None:
    done = run(*APPLY, "--yes")
    assert done.returncode == 0 and done.stdout == "" and "serverside-applied" in done.stderr
    [(arguments, text)] = [call for call in calls(fake) if call[0][0] == "apply"]
    assert arguments == ["apply", "--server-side", "--field-manager", "sweep", "-f", "-"]
    assert text == made("cpu", "s3://bucket/sweeps").text


def test_apply_asks_first_and_does_nothing_where_nobody_can_answer(fake: Path) -> None:
    done = run(*APPLY)
    assert done.returncode == 2 and "--yes" in done.stderr and "a-cluster" in done.stderr
    assert not [call for call in calls(fake) if call[0][0] == "apply"]


@pytest.mark.parametrize(("answer", "status", "applied"), [("y", 0, 1), ("n", 1, 0)])
def test_apply_asks_on_a_terminal(
    fake: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, applied: int
) -> None:
    from typer.testing import CliRunner

    monkeypatch.setattr(cli, "_is_terminal", lambda: True)
    done = CliRunner().invoke(cli.app, ["kubernetes", str(WIDTH), *APPLY], input=f"{answer}\n")
    assert done.exit_code == status
    assert len([call for call in calls(fake) if call[0][0] == "apply"]) == applied


@pytest.mark.parametrize(("ends", "status"), [(("Complete", "SUCCEEDED"), 0), (("Failed", "FAILED"), 1)])
def test_follow_shows_states_and_the_log_until_the_job_ends(
    fake: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], ends: tuple[str, str], status: int
) -> None:
    cluster_status = {"desiredWorkerReplicas": 3, "availableWorkerReplicas": 1}
    running = {
        "jobDeploymentStatus": "Running",
        "jobStatus": "RUNNING",
        "jobId": "a",
        "rayClusterStatus": cluster_status,
    }
    last = {"jobDeploymentStatus": ends[0], "jobStatus": ends[1], "jobId": "a", "message": "because"}
    states = [{}, {"jobDeploymentStatus": "Initializing"}, None, running, running, last]
    (fake / "states.json").write_text(json.dumps(states))
    said: list[str] = []
    assert kubectl.follow("sweep-a", "team", said.append, poll=0.3) == (status == 0)
    assert said[0] == "New" or said[0] == "Initializing"
    assert "Running, job RUNNING, 1 of 3 workers" in said
    assert any("the server is gone for a moment" in line for line in said)
    assert said[-1] == f"{ends[0]}, job {ends[1]}, because"
    assert "896 runs to train" in capfd.readouterr().out
    log = next(arguments for arguments, _ in calls(fake) if arguments[0] == "logs")
    assert log == ["logs", "--follow", "job/sweep-a", "--namespace", "team"]


def test_follow_gives_up_where_the_cluster_never_answers(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fake / "states.json").write_text("[null]")
    monkeypatch.setattr(kubectl, "MAX_FAILED_QUERIES", 2)
    with pytest.raises(InputError, match="gone for a moment"):
        kubectl.follow("sweep-a", "team", lambda _: None, poll=0.01)


# The image.


def dockerfile() -> str:
    return (ROOT / "k8s" / "Dockerfile").read_text()


def test_the_image_holds_the_versions_that_the_manifests_name() -> None:
    found = dict(re.findall(r"\b(RAY|TORCH|TORCHVISION)=([\d.]+)", dockerfile()))
    assert found["RAY"] == cluster(overlay("gpu"))["rayVersion"]
    project = (ROOT / "pyproject.toml").read_text()
    assert f"<={found['TORCH']}" in project and f"<={found['TORCHVISION']}" in project
    version = re.search(r'^version = "(.*)"', project, re.M)
    assert version
    for name in OVERLAYS:
        tag = cluster(overlay(name))["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
        assert tag == f"sweep:{version[1]}-{'cpu' if name == 'cpu' else 'cuda'}" and tag in dockerfile()


def test_the_image_is_pinned_copies_what_is_there_and_ends_as_another_user_than_root() -> None:
    text = dockerfile()
    assert re.search(r"^ARG BASE=\S+:\S+@sha256:[0-9a-f]{64}$", text, re.M)
    users = re.findall(r"^USER (\d+):(\d+)$", text, re.M)
    run_as = cluster(overlay("gpu"))["headGroupSpec"]["template"]["spec"]["securityContext"]
    assert users == [(str(run_as["runAsUser"]), str(run_as["runAsGroup"]))]
    sources = [word for line in re.findall(r"^COPY (.*)$", text, re.M) for word in line.split()[:-1]]
    ignored = (ROOT / "k8s" / "Dockerfile.dockerignore").read_text().splitlines()
    assert sources and all((ROOT / source).exists() and f"!{source}" in ignored for source in sources)
    layers = [text.index(word) for word in ("torch==", "RAY=", "COPY sweep")]
    assert layers == sorted(layers)  # code last
    # The kernels are compiled in the image, not brought along from where another libc may be.
    assert re.search(r"apt-get install .* g\+\+ ", text) and "**/*.so" in ignored


def test_hadolint_finds_nothing_and_would() -> None:
    hadolint = shutil.which("hadolint") or Path(sys.executable).with_name("hadolint")
    if not Path(hadolint).exists():
        pytest.skip("hadolint is not installed")

    def lint(text: str) -> str:
        return subprocess.run([hadolint, "-"], input=text, capture_output=True, text=True).stdout

    assert lint(dockerfile()) == ""
    assert "DL3002" in lint(dockerfile().replace("USER 10001:10001", "USER root"))
    assert "DL3006" in lint(re.sub(r"ARG BASE=.*", "", dockerfile()).replace("${BASE}", "python"))


# Slow ones.


@pytest.mark.slow
def test_the_wheel_that_the_image_builds_carries_what_the_command_needs(tmp_path: Path) -> None:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    build = tmp_path / "build"
    for line in re.findall(r"^COPY (.*) /build\S*$", dockerfile(), re.M):
        for source in line.split():
            (build / source).parent.mkdir(parents=True, exist_ok=True)
            copy_of: Any = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy_of(ROOT / source, build / source)
    listed = re.search(r"RUN python -c '(.*)' \\\n", dockerfile())
    assert listed
    program = listed[1].replace("/build", str(build))
    wanted = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert {"torch", "ray"} <= {re.split(r"\W", line)[0] for line in wanted.splitlines()}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(tmp_path), str(build)]
    subprocess.run(wheel, check=True, capture_output=True)
    [built] = tmp_path.glob("*.whl")
    kernels = {name.rpartition("/")[2] for name in zipfile.ZipFile(built).namelist() if "/conv/native/" in name}
    assert {*native.SOURCES, *map(native.file_name, native.variants())} <= kernels and "hatch_build.py" not in kernels
    assert built.name.endswith("-any.whl") is not bool(native.variants())
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--quiet", "--target", str(installed), str(built)], check=True)
    command = [
        sys.executable,
        "-m",
        "sweep",
        "kubernetes",
        str(WIDTH),
        "--store",
        "s3://bucket/sweeps",
        "--image",
        "a:1",
    ]
    variables = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ray(yaml.safe_load_all(done.stdout))["metadata"]["name"].startswith("sweep-width-")
    assert (installed / "sweep" / "k8s" / "Dockerfile").is_file()


CHECKOV_LEFT_OUT = {
    "CKV_K8S_8": "liveness: the submitter ends by itself",
    "CKV_K8S_9": "readiness: the submitter serves nobody",
    "CKV_K8S_15": "images have a version, not a tag that moves",
    "CKV_K8S_35": "the operator hands its token over, and object stores' clients read their keys, as variables",
    "CKV_K8S_38": "the head's autoscaler calls the API server; that no other pod does is a test of its own",
    "CKV_K8S_43": "--image takes a digest; the example has a tag",
}


@pytest.mark.slow
def test_checkov_finds_nothing_and_would(tmp_path: Path) -> None:
    checkov = os.environ.get("CHECKOV") or shutil.which("checkov")
    if checkov is None:
        pytest.skip("checkov is not installed; CHECKOV names it")

    def lint(job: Document) -> set[str]:
        (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([*kuberay.pods(job), *policies(overlay("gpu"))]))
        asked = ["--file", str(tmp_path / "all.yaml"), "--framework", "kubernetes", "secrets", "--skip-download"]
        done = subprocess.run([checkov, *asked, "--output", "json"], capture_output=True, text=True)
        reports = json.loads(done.stdout)
        reports = reports if isinstance(reports, list) else [reports]
        assert sum(report["summary"]["passed"] for report in reports) > 100
        failed = [each for report in reports for each in report["results"]["failed_checks"]]
        return {each["check_id"] for each in failed}

    job = ray(overlay("gpu"))
    assert lint(job) <= set(CHECKOV_LEFT_OUT)
    broken = copy.deepcopy(job)
    head(broken)["securityContext"].update(runAsUser=0, runAsNonRoot=False)
    head(broken)["containers"][0]["securityContext"].update(runAsNonRoot=False, allowPrivilegeEscalation=True)
    head(broken)["containers"][0]["env"].append({"name": "AWS_ACCESS_KEY_ID", "value": "AKIAIOSFODNN7EXAMPLF"})
    found = lint(broken) - set(CHECKOV_LEFT_OUT)
    assert {"CKV_K8S_20", "CKV_SECRET_2"} <= found and {"CKV_K8S_23", "CKV_K8S_40"} & found
