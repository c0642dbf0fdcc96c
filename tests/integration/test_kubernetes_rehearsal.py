"""The manifests that `sweep kubernetes` prints, run: real Ray processes in namespaces that stand for the pods.

What the operator does is done by hand, as `kuberay` restates it: the token's Secret, the head's and the workers' `ray
start`, the submission of the entrypoint. Its autoscaler, the policies and probes are not rehearsed.
"""

import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pandas as pd
import pytest
from support import kuberay, namespaces
from support.object_store import CREDENTIALS

from sweep.data.library import Library
from sweep.kubernetes import manifests
from sweep.kubernetes.manifests import DeploymentOptions

WHY_NOT = namespaces.missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]

SPACE = """
name: Rehearsal_1
settings: {steps: 200, weight_init: truncated_normal, input_scaling: centered}
axes: {width: [2, 4], batch_norm: [false, true], seed: 32}
"""
STORE = "s3://bucket/sweeps"
ENDPOINT = f"http://{namespaces.GATEWAY}:5000"
SECRET = CREDENTIALS | {"AWS_ENDPOINT_URL": ENDPOINT}
PLACES_AND_TIMES = ["train_seconds", "finished_at"]


class Rehearsal:
    """The cluster of a RayJob."""

    def __init__(self, network: namespaces.Network, folder: Path, manifests: manifests.Manifests) -> None:
        self.network, self.folder = network, folder
        found = {
            kind: [each for each in manifests.documents if each["kind"] == kind] for kind in ("RayJob", "ConfigMap")
        }
        [self.job], [space] = found["RayJob"], found["ConfigMap"]
        self.files = folder / "space"
        self.files.mkdir()
        for name, content in space["data"].items():
            (self.files / name).write_text(content)
        self.space_name = space["metadata"]["name"]
        self.submitter, self.head, self.worker = kuberay.pods(self.job)
        self.cluster: str = self.head["metadata"]["name"].removesuffix("-head")
        self.service = f"{self.cluster}-head-svc.sweep.svc.cluster.local"
        token = {"auth_token": secrets.token_hex(32)}
        self.secrets = {"sweep-store": SECRET, self.cluster: token, self.job["metadata"]["name"]: token}
        self.hosts: dict[str, str] = {}
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        self.signer = boto3.client("s3", endpoint_url=ENDPOINT, **keys)

    def start(self, pod: dict[str, Any], command: str, suffix: str = "", **environment: str) -> namespaces.Pod:
        """Starts a pod; what the operator sets besides the token goes by `environment`."""
        name = pod["metadata"]["name"] + suffix
        container = pod["spec"]["containers"][0]
        variables = [*container["env"], *({"name": key, "value": value} for key, value in environment.items())]
        spec = pod["spec"] | {"containers": [container | {"env": variables}]}
        pod = pod | {"metadata": pod["metadata"] | {"name": name}, "spec": spec}
        return self.network.start(pod, command, self.secrets, {self.space_name: self.files}, self.hosts)

    def start_head(self) -> namespaces.Pod:
        command = f"ulimit -n 65536; {kuberay.head_command(self.job['spec']['rayClusterSpec'])}"
        head = self.start(self.head, command, RAY_ADDRESS="127.0.0.1:6379", RAY_PORT="6379")
        self.hosts[self.service] = head.address
        return head

    def start_worker(self, number: int) -> namespaces.Pod:
        [group] = self.job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        address = f"{self.service}:6379"
        wait = f"until ray health-check --address {address} >/dev/null 2>&1; do sleep 1; done"
        command = f"{wait}; ulimit -n 65536; {kuberay.start_command(group, address)}"
        return self.start(self.worker, command, f"-{number}", RAY_ADDRESS=address, RAY_PORT="6379")

    def submit(self) -> namespaces.Pod:
        dashboard = f"http://{self.service}:8265"
        healthy = f"python -c 'import urllib.request as u; u.urlopen(\"{dashboard}/api/gcs_healthz\", timeout=5)'"
        submit = kuberay.submit_command(self.job["spec"]["entrypoint"], dashboard)
        status = f"ray job status --address {dashboard} sweep-job"
        return self.start(self.submitter, f"until {healthy} 2>/dev/null; do sleep 1; done; {submit}; {status}")

    def objects(self, prefix: str) -> list[str]:
        """The names below a prefix of the store."""
        listing = self.get(f"/bucket?list-type=2&prefix=sweeps/{prefix}")
        return [part.partition("</Key>")[0] for part in listing.split("<Key>")[1:]]

    def get(self, path: str) -> str:
        """What the object store answers; nothing where it has no such thing."""
        program = f"import urllib.request as u; print(u.urlopen({ENDPOINT + path!r}).read().decode())"
        asked = self.network.inside(sys.executable, "-S", "-c", program)
        return subprocess.run(asked, capture_output=True, text=True).stdout

    def object(self, name: str) -> str:
        names = {"Bucket": "bucket", "Key": name}
        return self.get(self.signer.generate_presigned_url("get_object", names).removeprefix(ENDPOINT))

    def holders(self) -> set[str]:
        """The hosts that are training an array."""
        leases = (self.object(name) for name in self.objects("leases/"))
        return {json.loads(lease)["host"] for lease in leases if lease.strip()}


def host_of(pod: namespaces.Pod) -> str:
    """As `sweep.common.host.this_host` calls it, in the pod."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    processes = os.readlink(f"/proc/{pod.process.pid}/ns/pid_for_children")
    return hashlib.sha256(f"{pod.name}\0{boot}\0{processes}".encode()).hexdigest()[:12]


def until(true: Callable[[], bool], seconds: float, *pods: namespaces.Pod) -> None:
    last = time.monotonic() + seconds
    while not true():
        logs = "\n".join(f"--- {pod.name}\n{pod.log.read_text(errors='replace')[-4000:]}" for pod in pods)
        assert time.monotonic() < last, logs
        assert all(pod.process.poll() is None for pod in pods), logs
        time.sleep(0.3)


@pytest.fixture
def bucket(tmp_path: Path) -> Any:
    """A network with an object store at its gateway."""
    with namespaces.network(tmp_path / "pods") as network:
        command = network.inside(sys.executable, "-m", "moto.server", "--host", namespaces.GATEWAY, "--port", "5000")
        with open(tmp_path / "moto.log", "wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        make = f"import urllib.request as u; u.urlopen(u.Request('{ENDPOINT}/bucket', method='PUT'))"
        try:
            last = time.monotonic() + 60
            while subprocess.run(network.inside(sys.executable, "-S", "-c", make), capture_output=True).returncode:
                assert time.monotonic() < last, (tmp_path / "moto.log").read_text()
                time.sleep(0.3)
            yield network
        finally:
            server.kill()
            server.wait()


def table(path: Path) -> pd.DataFrame:
    rows = pd.read_parquet(path).drop(columns=PLACES_AND_TIMES)
    return rows.sort_values("run_id", ignore_index=True)


def test_a_cluster_that_loses_a_worker_trains_what_this_machine_trains(
    bucket: namespaces.Network, tmp_path: Path
) -> None:
    space = tmp_path / "Rehearsal_1.yaml"
    space.write_text(SPACE)
    options = DeploymentOptions("cpu", "sweep:rehearsal", STORE, max_workers=2)
    made = manifests.manifests(manifests.read(space), options, Library(tmp_path / "data", downloads=False))
    rehearsal = Rehearsal(bucket, tmp_path, made)

    head = rehearsal.start_head()
    workers = [rehearsal.start_worker(number) for number in (1, 2)]
    submitter = rehearsal.submit()
    until(lambda: bool(rehearsal.holders()), 150, head, *workers, submitter)
    holders = rehearsal.holders()
    lost = next(worker for worker in workers if host_of(worker) in holders)
    lost.kill()  # an array in training with it
    [left] = [worker for worker in workers if worker is not lost]
    until(lambda: submitter.process.poll() is not None, 300, head, left)

    log = submitter.log.read_text()
    assert submitter.process.returncode == 0 and "succeeded" in log, log
    assert "256 runs trained" in log and "report:" in log
    assert len(rehearsal.objects("reports/Rehearsal_1/")) >= 4

    environment = os.environ | SECRET
    export = [sys.executable, "-m", "sweep", "export", "Rehearsal_1", "--to"]
    there = tmp_path / "there.parquet"
    subprocess.run(
        bucket.inside(*export, str(there), "--store", STORE), check=True, env=environment, cwd=namespaces.ROOT
    )
    bucket.close()

    launch = [sys.executable, "-m", "sweep", "launch", str(space), "--store", str(tmp_path / "here"), "--no-report"]
    subprocess.run(launch, check=True, capture_output=True, cwd=namespaces.ROOT)
    here = tmp_path / "here.parquet"
    subprocess.run([*export, str(here), "--store", str(tmp_path / "here")], check=True, cwd=namespaces.ROOT)
    pd.testing.assert_frame_equal(table(there), table(here), check_exact=True)
    assert len(table(there)) == 256
