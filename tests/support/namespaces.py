"""Linux namespaces that stand for a cluster: each pod with its own network address, processes, host name and disks.

A pod sees this machine's system read-only, as if it were the image, with Python and the project where they are here;
the volumes of its manifest are mounted over it; its process has the manifest's user and no capabilities. Needs root.
"""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GATEWAY = "10.77.0.1"
TOOLS = ("chroot", "ip", "mount", "nsenter", "setpriv", "unshare")
HIDDEN = ("/root", "/home", "/mnt", "/tmp")
"""Folders that no image has; Python and the project are put back where they are below them."""

Document = dict[str, Any]

# Runs as root in the pod's namespaces, and ends as the pod's process.
SETUP = r"""
set -eu
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip addr add "$ADDRESS/24" dev eth0
ip link set eth0 up
ip route add default via "$GATEWAY"
hostname "$NAME"
mount --rbind / "$IMAGE"
mount --make-rprivate "$IMAGE"
for place in $HIDDEN /dev/shm; do
  [ -d "$IMAGE$place" ] && mount -t tmpfs -o mode=755 tmpfs "$IMAGE$place"
done
for place in $KEPT; do
  mkdir -p "$IMAGE$place"
  mount --rbind "$place" "$IMAGE$place"
done
mkdir "$IMAGE/tmp/etc"
cp -a /etc/. "$IMAGE/tmp/etc"
mount -t tmpfs -o mode=755 tmpfs "$IMAGE/etc"
cp -a "$IMAGE/tmp/etc/." "$IMAGE/etc"
rm -r "$IMAGE/tmp/etc"
echo "sweep:x:$UID_:$GID_::/home/sweep:/bin/bash" >> "$IMAGE/etc/passwd"
printf '%s\n' "$HOSTS" > "$IMAGE/etc/hosts"
rm -f "$IMAGE/etc/resolv.conf"
echo "nameserver 127.0.0.1" > "$IMAGE/etc/resolv.conf" # nothing listens there, so lookups fail at once
mkdir -p "$IMAGE/home/sweep" $(for each in $MOUNTS; do echo "$IMAGE${each#*=}"; done)
mount -t proc proc "$IMAGE/proc"
# All read-only, like the root file system of a container, except what the kernel itself serves.
awk -v root="$IMAGE" '$5 == root || index($5, root "/") == 1 {print $5}' /proc/self/mountinfo | while read -r place; do
  case "$place" in "$IMAGE"/proc*|"$IMAGE"/sys*|"$IMAGE"/dev*) continue ;; esac
  [ ! -e "$place" ] || mount -o remount,ro,bind "$place" # what is no longer there has been hidden
done
for each in $MOUNTS; do
  place="$IMAGE${each#*=}"
  mkdir -p "$place" # below another volume, perhaps
  case "${each%%=*}" in
    memory|disk) mount -t tmpfs -o "mode=2777,gid=$GID_,size=12g" tmpfs "$place" ;;
    *) mount --bind "${each%%=*}" "$place" && mount -o remount,ro,bind "$place" ;;
  esac
done
# /tmp is a volume too: what has to be below it comes on top.
for place in $KEPT; do
  if [ ! -e "$IMAGE$place" ]; then
    mkdir -p "$IMAGE$place"
    mount --rbind "$place" "$IMAGE$place"
    mount -o remount,ro,bind "$IMAGE$place"
  fi
done
exec chroot "$IMAGE" setpriv --reuid "$UID_" --regid "$GID_" --groups "$GID_" --no-new-privs --bounding-set -all \
  --inh-caps -all -- env --chdir=/home/sweep --ignore-environment "$@"
"""


def missing() -> str | None:
    """Why there can be no pods here; None where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "pods are Linux namespaces, which only root can connect by network devices"
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"pods need {', '.join(lacking)}"
    probe = "mount -t tmpfs tmpfs /mnt && ip link add br0 type bridge && ip link add v0 type veth peer name v1"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "sh", "-c", probe],
        capture_output=True,
        text=True,
    )
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else None


@dataclasses.dataclass
class Pod:
    """A pod that runs; its log is a file."""

    name: str
    address: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def kill(self) -> None:
        """Ends every process of the pod at once, as the loss of its node does."""
        for child in _children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)  # the first process of its namespace: the kernel ends the others
        self.process.wait(30)


class Network:
    """A bridge between pods, with no way out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pods: list[Pod] = []
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        try:
            _until(lambda: _network_of(self._holder.pid) != _network_of(os.getpid()), 10)
            self._run("ip", "link", "add", "br0", "type", "bridge").check_returncode()
            for command in (f"addr add {GATEWAY}/24 dev br0", "link set br0 up", "link set lo up"):
                self._run("ip", *command.split()).check_returncode()
        except BaseException:
            self.close()
            raise

    def inside(self, *command: str) -> list[str]:
        """A command to be run at the gateway's address."""
        return ["nsenter", "--net", "--target", str(self._holder.pid), *command]

    def start(
        self,
        pod: Document,
        command: str,
        secrets: Mapping[str, Mapping[str, str]],
        files: Mapping[str, Path],
        hosts: Mapping[str, str],
    ) -> Pod:
        """Runs `command`, in bash, as the first container of a pod of Kubernetes.

        By name: `secrets` are the Secrets that it may read, `files` the folders that stand for ConfigMaps, `hosts`
        the addresses that it knows.
        """
        name, container = pod["metadata"]["name"], pod["spec"]["containers"][0]
        number = len(self.pods) + 2
        address, folder = f"10.77.0.{number}", self.folder / name
        (folder / "image").mkdir(parents=True)
        user = pod["spec"]["securityContext"]
        names = {GATEWAY: "gateway", "127.0.0.1": "localhost", address: name} | {to: of for of, to in hosts.items()}
        environment = {
            "ADDRESS": address,
            "GATEWAY": GATEWAY,
            "NAME": name,
            "IMAGE": str(folder / "image"),
            "HIDDEN": " ".join(HIDDEN),
            "KEPT": " ".join(dict.fromkeys(map(str, (sys.prefix, sys.base_prefix, ROOT)))),
            "MOUNTS": " ".join(_mounts(pod, files)),
            "HOSTS": "\n".join(f"{to} {of}" for to, of in names.items()),
            "UID_": str(user["runAsUser"]),
            "GID_": str(user["runAsGroup"]),
            "PATH": os.environ["PATH"],
        }
        variables = [f"{key}={value}" for key, value in _environment(container, secrets).items()]
        unshared = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        log = folder / "log"
        with open(log, "wb") as file:
            process = subprocess.Popen(
                self.inside(*unshared, "sh", "-c", SETUP, "pod", *variables, "/bin/bash", "-c", "--", command),
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        started = Pod(name, address, process, log)
        self.pods.append(started)
        others = _network_of(self._holder.pid), _network_of(os.getpid())
        _until(lambda: _network_of(process.pid) not in others, 10)
        link = f"link add v{number} type veth peer name eth0 netns {process.pid}"
        self._run("ip", *link.split()).check_returncode()
        self._run("ip", *f"link set v{number} master br0 up".split()).check_returncode()
        return started

    def close(self) -> None:
        for pod in self.pods:
            pod.kill()
        self._holder.kill()
        self._holder.wait()

    def _run(self, *command: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(self.inside(*command), capture_output=True)


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    made = Network(folder)
    try:
        yield made
    finally:
        made.close()


def _mounts(pod: Document, files: Mapping[str, Path]) -> Iterator[str]:
    """`what=where` of each volume of the first container, outer ones first."""
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for mount in sorted(pod["spec"]["containers"][0]["volumeMounts"], key=lambda mount: mount["mountPath"]):
        volume = volumes[mount["name"]]
        if "emptyDir" in volume:
            what = "memory" if volume["emptyDir"].get("medium") == "Memory" else "disk"
        else:
            what = str(files[volume["configMap"]["name"]])
        yield f"{what}={mount['mountPath']}"


def _environment(container: Document, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The variables of a container: the image's, those of whole Secrets, then its own."""
    path = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin"
    found = {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    for source in container.get("envFrom", []):
        found |= secrets.get(source["secretRef"]["name"], {})
    for variable in container["env"]:
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            found[variable["name"]] = secrets[reference["name"]][reference["key"]]
    return found


def _network_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _until(true: Any, seconds: float) -> None:
    last = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < last, "waited in vain"
        time.sleep(0.05)
