"""The manifests that run one search space on Kubernetes: an overlay of `k8s/` with this sweep filled in.

The YAML is that of `k8s/`, which the wheel includes; what differs from sweep to sweep goes into kustomize's own
patches, which `kubectl kustomize` applies. Needs neither a cluster nor the network, the store, torch or ray.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from sweep import plan
from sweep.commands.plan import pictured
from sweep.common import addresses
from sweep.common.errors import InputError
from sweep.data.library import Library
from sweep.kubernetes import OVERLAYS, kubectl
from sweep.plan import Array, DeviceKind
from sweep.space import catalogue, yaml_lines
from sweep.space.search_space import SearchSpace, parse

LONGEST_NAME: Final = 44
"""Characters of a RayJob's name. The operator's `validation.go` allows 47, but the operator adds six to name the
cluster and cuts the result at 50; uncut, the Secret of the cluster's token has the cluster's name."""

LARGEST_CONFIG_MAP: Final = 2**20
"""Bytes of a ConfigMap, its keys included."""

MOUNTED: Final = "/mnt/store"
"""Where pods mount the claim of a `pvc://` store."""

SECONDS_OF_LONGEST: Final[dict[DeviceKind, float]] = {"cpu": 120.0, "native": 120.0, "cuda": 60.0}
"""Seconds that an array of `plan.LONGEST` operations takes: on one core of an EPYC, measured; on an H100, estimated
from first trials of our kernels."""

ARRAY_SECONDS: Final[dict[DeviceKind, float]] = {"cpu": 1.0, "native": 1.0, "cuda": 10.0}
"""Seconds that an array costs besides its arithmetic; on a GPU, where kernels and graphs are compiled, a guess."""

STARTUP_SECONDS: Final = 1800
"""Seconds that nodes, images and Ray may take before the first array is trained."""

DEADLINE_FACTOR: Final = 3
"""The deadline is this many times the estimate, to allow for slower machines, retries and the last arrays."""

PROCESS_BYTES: Final[dict[DeviceKind, int]] = {"cpu": 3 * 2**28, "native": 3 * 2**28, "cuda": 4 * 2**30}
"""Bytes that a training process needs besides its array: 0.70 GiB measured on a CPU; with CUDA's libraries, a guess."""

NODE_BYTES: Final = 2**30
"""Bytes that a Ray node's own processes need."""

STORE_SHARE: Final = 0.3
"""The share of its memory that a Ray node reserves for shared objects, which hold the pictures."""

_INSTANCE: Final = "app.kubernetes.io/instance"
_QUEUE: Final = "kueue.x-k8s.io/queue-name"
_IMAGE: Final = re.compile(
    r"(?P<name>[^\s:@]+(?::\d+/[^\s:@]+)?)(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")

Document = dict[str, Any]
Keys = tuple[str | int, ...]
"""The keys and indices that lead to a part of a document."""


@dataclasses.dataclass(frozen=True)
class DeploymentOptions:
    """The user's options; None means that the overlay decides."""

    overlay: str = "gpu"
    image: str | None = None
    store: str | None = None
    namespace: str = "sweep"
    max_gpus: int | None = None
    max_workers: int | None = None
    queue: str | None = None

    def __post_init__(self) -> None:
        if self.overlay not in OVERLAYS:
            raise InputError(f"--overlay {self.overlay}: choose from {', '.join(OVERLAYS)}")
        if not _LABEL.fullmatch(self.namespace):
            raise InputError(f"--namespace {self.namespace}: must be at most 63 lower-case letters, digits and hyphens")
        if self.image is not None and not _IMAGE.fullmatch(self.image):
            raise InputError(f"--image {self.image}: expected NAME:TAG or NAME@sha256:DIGEST")
        for flag, number in {"--max-gpus": self.max_gpus, "--max-workers": self.max_workers}.items():
            if number is not None and number < 1:
                raise InputError(f"{flag} {number}: must be at least 1")
        if self.max_gpus is not None and self.device != "cuda":
            raise InputError(f"--max-gpus {self.max_gpus}: the overlay cpu uses none; limit it with --max-workers")
        if self.max_workers is not None and self.device == "cuda":
            raise InputError(f"--max-workers {self.max_workers}: requires --overlay cpu; limit others with --max-gpus")
        if self.queue is not None and self.overlay != "kueue":
            raise InputError(f"--queue {self.queue}: requires --overlay kueue")
        if self.queue is not None and (len(self.queue) > 63 or not _SUBDOMAIN.fullmatch(self.queue)):
            raise InputError(f"--queue {self.queue}: must be at most 63 lower-case letters, digits, hyphens and dots")
        _ = self.mounts

    @property
    def device(self) -> DeviceKind:
        """What the launch there plans its arrays for: the image has the native kernels."""
        return "native" if self.overlay == "cpu" else "cuda"

    @property
    def shared(self) -> bool:
        """Whether the cluster serves many sweeps, which are submitted from elsewhere."""
        return self.overlay == "shared-cluster"

    @property
    def mounts(self) -> "tuple[str, str] | None":
        """The claim of a mounted store, and the store's folder in the pods; None for an object store."""
        given = "pvc://sweep-results" if self.store is None else self.store
        found = addresses.parse(given, "--store", addresses.PODS)
        if found.scheme != "pvc":
            return None
        if not _SUBDOMAIN.fullmatch(found.host):
            raise InputError(f"--store {given}: {addresses.PODS.words}")
        return found.host, "/".join(part for part in (MOUNTED, found.path) if part)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large to make the cluster. What depends on pictures of unknown shape is None, and the overlay decides.

    `memory` of a worker, and `gpu_memory` that the largest array needs on a GPU, are in bytes.
    """

    runs: int
    arrays: int | None
    workers: int
    memory: int | None
    gpu_memory: int | None
    estimated_seconds: float | None
    deadline_seconds: int | None
    estimate: str


@dataclasses.dataclass(frozen=True)
class Manifests:
    """The manifests to apply, and notes on what the user should know."""

    name: str
    text: str
    sizes: Sizes
    notes: tuple[str, ...]

    @property
    def documents(self) -> list[Document]:
        return [document for document in yaml.safe_load_all(self.text) if document]

    def as_json(self) -> Document:
        """For machines: the name in the cluster, the sizes, and the manifests."""
        return {"name": self.name, **dataclasses.asdict(self.sizes), "manifests": self.documents}


class Source(NamedTuple):
    """A search space, and the bytes that it was read from."""

    space: SearchSpace
    content: bytes


def read(path: Path) -> Source:
    """The search space in a file; InputError where a ConfigMap cannot hold it."""
    content, room = yaml_lines.read(path), LARGEST_CONFIG_MAP - 128  # for its key
    if len(content) > room:
        raise InputError(
            f"{path}: more than the {room:,} bytes that a ConfigMap holds. Remove comments, give seeds as a count "
            "(seed: 500), or split the search space: sweeps with the same store share their rows"
        )
    return Source(parse(content, path), content)


def manifests(source: Source, options: DeploymentOptions, library: Library, output: Path | None = None) -> Manifests:
    """The overlay with this sweep filled in; with `output`, its kustomization is also written to that folder.

    The folder is written whole or not at all. Raises InputError where it already holds something.
    """
    output = None if output is None else addresses.local(output, "--output")
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output {output}: already exists; name a new folder, or an empty one")
    with tempfile.TemporaryDirectory(prefix="sweep-") as scratch:
        folder = Path(scratch) / "kustomization"
        found = _written(folder, source, options, library)
        if output is not None:
            _move(folder, output)
    return found


def name_of(source: Source, options: DeploymentOptions) -> str:
    """The sweep's name in the cluster: a DNS label that differs wherever the search space or the options do."""
    if options.shared:
        return "sweep"
    about = [source.space.name, source.content.decode("utf-8", "replace"), *map(str, dataclasses.astuple(options))]
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]
    room = LONGEST_NAME - len(f"sweep--{digest}")
    slug = re.sub(r"[^a-z0-9]+", "-", source.space.name.lower()).strip("-")[:room].strip("-")
    return "-".join(part for part in ("sweep", slug, digest) if part)


def sizes(space: SearchSpace, options: DeploymentOptions, library: Library, cluster: Document) -> Sizes:
    """How many workers, how large and for how long: from the plan alone, as if the store were empty."""
    group = cluster["workerGroupSpecs"][0]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    slots = int(limits.get("nvidia.com/gpu", limits["cpu"]))  # arrays that a worker trains at once
    most = options.max_gpus or options.max_workers or group["maxReplicas"]
    arrays = _arrays(space, options.device, library)
    if arrays is None:
        return Sizes(space.run_count(), None, most, None, None, None, None, "unknown, like the shape of the pictures")
    needed = max(1, -(-len(arrays) // slots))
    workers = most if options.shared else min(most, needed)
    seconds = _seconds(arrays, options.device, workers * slots)
    kind = "GPUs like an H100 (by first trials of the kernels)" if options.device == "cuda" else "cores (of an EPYC)"
    rate = plan.LONGEST[options.device] / SECONDS_OF_LONGEST[options.device]
    return Sizes(
        runs=space.run_count(),
        arrays=len(arrays),
        workers=workers,
        memory=_memory(arrays, options.device, slots, _pictures(space)),
        gpu_memory=_gib(max(array.bytes for array in arrays) + 2**30) if options.device == "cuda" else None,
        estimated_seconds=seconds,
        deadline_seconds=max(3600, -(-(STARTUP_SECONDS + DEADLINE_FACTOR * math.ceil(seconds)) // 600) * 600),
        estimate=f"on {workers * slots} {kind} at {rate:.0e} operations per second each; not measured on this cluster",
    )


def _written(folder: Path, source: Source, options: DeploymentOptions, library: Library) -> Manifests:
    """Writes the kustomization and builds it."""
    home = _home()
    for part in ("base", "overlays", "components"):
        shutil.copytree(home / part, folder / part)
    name, space = name_of(source, options), source.space
    top: Document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": options.namespace,
        "resources": [f"overlays/{options.overlay}"],
        "components": [f"components/{each}" for each in _components(space, options)],
    }
    _save(folder, top)
    built = [document for document in yaml.safe_load_all(kubectl.build(folder)) if document]
    cluster = next(found for document in built if (found := _cluster(document)))
    size = sizes(space, options, library, cluster[1])
    values = _Values(name, source, options, size)
    top["patches"] = [patch for document in built if (patch := _patch(document, values))]
    if options.image:
        top["images"] = [_image(options.image)]
    if not options.shared:
        (folder / "space.yaml").write_bytes(source.content)
        labels = {"app.kubernetes.io/part-of": "sweep", _INSTANCE: name}
        files = [f"{space.name}.yaml=space.yaml"]
        top["configMapGenerator"] = [{"name": name, "files": files, "options": {"labels": labels, "immutable": True}}]
        top["generatorOptions"] = {"disableNameSuffixHash": True}
    _save(folder, top)
    return Manifests(name, kubectl.build(folder).rstrip() + "\n", size, tuple(_notes(space, options, size)))


@dataclasses.dataclass(frozen=True)
class _Values:
    """What `_filled` fills in."""

    name: str
    source: Source
    options: DeploymentOptions
    sizes: Sizes

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the head, by name."""
        mounts = self.options.mounts
        if mounts is None:
            return {"SWEEP_STORE": self.options.store or ""}
        return {"SWEEP_STORE": mounts[1], "SWEEP_DATA_DIR": f"{MOUNTED}/data"}

    @property
    def annotations(self) -> dict[str, str]:
        """What the cluster was sized for, for whoever inspects it later."""
        size = self.sizes
        known = {
            "sweep": self.source.space.name,
            "version": importlib.metadata.version("sweep"),
            "runs": size.runs,
            "arrays": size.arrays,
            "estimated-seconds": None if size.estimated_seconds is None else math.ceil(size.estimated_seconds),
            "estimate": size.estimate,
            "gpu-memory": None if size.gpu_memory is None else f"{size.gpu_memory // 2**30}Gi",
        }
        return {f"sweep/{key}": str(value) for key, value in known.items() if value is not None}


def _patch(document: Document, values: _Values) -> Document | None:
    """What this sweep changes in one object of the overlay, as a JSON patch; None if it changes nothing."""
    operations = [
        {"op": "replace", "path": _pointer(path), "value": new}
        for path, old in _walk(document)
        if (new := _filled(path, old, document, values)) != old
    ]
    if found := _cluster(document):
        operations += _cluster_operations(document, found, values)
    if not operations:
        return None
    name = document["metadata"]["name"]
    return {
        "target": {"kind": document["kind"], "name": f"^{re.escape(name)}$"},
        "patch": json.dumps(operations, indent=1),
        "options": {"allowNameChange": True},
    }


def _filled(path: Keys, old: Any, document: Document, values: _Values) -> Any:
    """This sweep's value at a path of an object, where `old` is the overlay's."""
    if path[-1] == _INSTANCE:
        return values.name
    if path == ("metadata", "name") and _INSTANCE in document["metadata"].get("labels", {}):
        return re.sub("^sweep", values.name, old)
    if path == ("spec", "entrypoint"):
        return old.replace("/etc/sweep/space.yaml", f"/etc/sweep/{values.source.space.name}.yaml")
    if path[-2:] == ("configMap", "name"):
        return values.name
    if path[-2:] == ("configMap", "optional"):
        return values.options.shared
    if path[-1] == "claimName" and values.options.mounts:
        return values.options.mounts[0]
    if path[-1] == _QUEUE and values.options.queue:
        return values.options.queue
    if path[-1] == "value" and path[-3] == "env":
        return values.environment.get(_at(document, path[:-1])["name"], old)
    return old


def _cluster_operations(document: Document, found: tuple[Keys, Document], values: _Values) -> Iterator[Document]:
    """The patch operations for sizes, deadline and annotations."""
    size, (where, cluster) = values.sizes, found
    group = (*where, "workerGroupSpecs", 0)
    annotations = document["metadata"].get("annotations", {}) | values.annotations
    yield {"op": "add", "path": "/metadata/annotations", "value": annotations}
    if document["kind"] == "RayJob" and size.deadline_seconds is not None:
        yield {"op": "replace", "path": "/spec/activeDeadlineSeconds", "value": size.deadline_seconds}
    fixed = not cluster.get("enableInTreeAutoscaling")
    for key in ("maxReplicas", *(("minReplicas", "replicas") if fixed else ())):
        yield {"op": "replace", "path": _pointer((*group, key)), "value": size.workers}
    if size.memory is not None:
        resources = (*group, "template", "spec", "containers", 0, "resources")
        for kind in ("requests", "limits"):
            memory = f"{size.memory // 2**30}Gi"
            yield {"op": "replace", "path": _pointer((*resources, kind, "memory")), "value": memory}


def _components(space: SearchSpace, options: DeploymentOptions) -> list[str]:
    """The components of `k8s/` that the store and the data sets need."""
    store = "claim" if options.mounts else "object-store"
    identity = ["metadata-server"] if (options.store or "").startswith("gs://") else []
    return [store, *identity, *(["downloads"] if _downloaded(space) else [])]


def _downloaded(space: SearchSpace) -> list[str]:
    return [name for name in space.datasets if not catalogue.embedded(name) and catalogue.has_constant(name)]


def _notes(space: SearchSpace, options: DeploymentOptions, size: Sizes) -> Iterator[str]:
    """What the user has to take care of, or may want to know."""
    if options.image is None:
        yield "Image: the overlay's, without a registry; --image names yours (k8s/Dockerfile builds it)."
    if options.store is None:
        yield "Store: the ReadWriteMany claim sweep-results; --store names another one, or s3://BUCKET/PREFIX."
    if options.overlay == "kueue" and options.queue is None:
        yield "Queue: the LocalQueue sweep; --queue names yours."
    for name in space.datasets:
        if not catalogue.embedded(name) and not catalogue.has_constant(name):
            yield f"The data set {name} must be readable by the head: in the image, or on the store's claim."
    if size.arrays is None:
        yield "Sizes and deadline are the overlay's, as the shape of the pictures is unknown here."


def _arrays(space: SearchSpace, device: DeviceKind, library: Library) -> list[Array] | None:
    known = pictured(space, library)
    return list(plan.arrays(known, device)) if all(map(known.facts, known.datasets)) else None


def _seconds(arrays: Sequence[Array], device: DeviceKind, slots: int) -> float:
    """Seconds of training on `slots` cores or GPUs, from the arithmetic of the arrays."""
    rate = plan.LONGEST[device] / SECONDS_OF_LONGEST[device]
    seconds = [array.work / rate + ARRAY_SECONDS[device] for array in arrays]
    return max(sum(seconds) / slots, max(seconds))


def _memory(arrays: Sequence[Array], device: DeviceKind, slots: int, pictures: int) -> int:
    """Bytes of memory of a worker that trains `slots` arrays at once, in whole GiB.

    On a GPU the array itself is on the device, but its checkpoint passes through main memory: weights, at most two
    moments, and a copy.
    """
    if device != "cuda":
        each = PROCESS_BYTES[device] + max(array.bytes for array in arrays)
    else:
        each = PROCESS_BYTES[device] + 24 * max(array.parameter_count() for array in arrays)
    needed = max(NODE_BYTES + slots * each + pictures, pictures / STORE_SHARE)
    return _gib(needed * 1.25)  # Ray ends workers before a node's memory is full


def _pictures(space: SearchSpace) -> int:
    """Bytes of all pictures of the data sets whose sizes are known."""
    entries = [catalogue.CATALOGUE[name] for name in space.datasets if name in catalogue.CATALOGUE]
    return sum(
        math.prod(each.picture) * (each.train + (each.validation or 0) + (each.test or 0))
        for each in entries
        if each.train
    )


def _gib(size: float) -> int:
    return math.ceil(size / 2**30) * 2**30


def _image(given: str) -> Document:
    """An image as kustomize's images transformer expects it."""
    found = _IMAGE.fullmatch(given)
    assert found
    parts = {"newName": found["name"], "newTag": found["tag"], "digest": found["digest"]}
    if parts["digest"]:
        parts["newTag"] = None  # kustomize accepts only one of the two
    elif not parts["newTag"]:
        parts["newTag"] = "latest"  # what no tag means; otherwise the overlay's would stay
    return {"name": "sweep", **{key: value for key, value in parts.items() if value}}


def _cluster(document: Document) -> tuple[Keys, Document] | None:
    """The path to the description of a Ray cluster in an object, and the description; None if it has none."""
    if document["kind"] == "RayJob":
        return ("spec", "rayClusterSpec"), document["spec"]["rayClusterSpec"]
    return (("spec",), document["spec"]) if document["kind"] == "RayCluster" else None


def _walk(node: Any, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Every value that is neither a mapping nor a list, after the path to it."""
    if isinstance(node, dict | list):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _walk(child, (*path, key))
    else:
        yield path, node


def _at(node: Any, path: Keys) -> Any:
    for key in path:
        node = node[key]
    return node


def _pointer(path: Keys) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in path)


def _save(folder: Path, kustomization: Document) -> None:
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization, sort_keys=False), encoding="utf-8")


def _move(folder: Path, output: Path) -> None:
    """Moves a finished folder to its place: copies it beside the place, then renames it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as beside:
        staged = shutil.copytree(folder, Path(beside) / "kustomization")
        staged.replace(output)  # an empty folder may be there


def _home() -> Path:
    """The folder `k8s/`: inside the package when installed from a wheel, beside it in a checkout."""
    here = Path(__file__).parents[1]
    return next(path for path in (here / "k8s", here.parent / "k8s") if (path / "base").is_dir())
