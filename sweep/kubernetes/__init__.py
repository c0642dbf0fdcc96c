"""Manifests for KubeRay, and kubectl."""
