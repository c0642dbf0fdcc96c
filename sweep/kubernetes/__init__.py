"""Manifests for KubeRay, and kubectl."""

from typing import Final

OVERLAYS: Final = ("cpu", "gpu", "gpu-spot", "kueue", "shared-cluster")
"""The folders of `k8s/overlays/`: the ways to run a sweep."""
