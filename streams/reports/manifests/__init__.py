"""Checks Kubernetes manifests and Kustomize overlays: nothing here talks to a cluster or to a network.

`check.py` is the way through it; `report.py` is what comes out.
"""
