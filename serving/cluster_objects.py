"""The Kubernetes objects of one release's engine: Deployment, Service, PodDisruptionBudget, HorizontalPodAutoscaler. Pure.

The same as `deploy/kubernetes/release`, filled in. An engine has no key of its own here, as it would cross the network in the clear: the
NetworkPolicy `engines` lets the gateway alone reach it. Next: `cluster.py`, which applies them.
"""

import math
import re
from typing import Any

from serving.cluster_settings import ClusterSettings
from serving.engine import arguments
from serving.errors import SlotError
from serving.records import Release
from serving.settings import Settings
from training.records import digest_of

MANAGED_BY, RELEASE, SPEC = "app.kubernetes.io/managed-by", "tunegate/release", "tunegate/spec-sha256"
PORT = 8000
_SERVICE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_LONGEST_NAME = 63
_SECURITY = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}

Object = dict[str, Any]


def name_of(release_id: str) -> str:
    """What the objects of a release are called: http://NAME:8000 is its address inside the cluster.

    Raises:
        SlotError: it cannot be the name of a Service.
    """
    name = f"engine-{release_id}"
    if not _SERVICE_NAME.fullmatch(release_id) or len(name) > _LONGEST_NAME:
        raise SlotError(
            f"{name!r} cannot be the name of a Service in Kubernetes",
            why="its address is made of it: letters, digits and dashes, 63 characters at most",
            do="choose a serving.public_name without dots and underscores for recipes whose engines run in a cluster",
        )
    return name


def objects_of(release: Release, settings: Settings, cluster: ClusterSettings) -> list[Object]:
    """Everything that a release's engine is, each with the digest of what it should be.

    Raises:
        SlotError: it cannot be run there.
    """
    name = name_of(release.id)
    try:
        pod = _pod(release, settings, cluster)
    except ValueError as error:
        raise SlotError(f"{release.id} cannot be served: {error}", do="correct the recipe's `serving` section") from error
    selector = {"matchLabels": labels_of(release.id)}
    deployment = {
        "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "selector": selector,
        "template": {"metadata": {"labels": labels_of(release.id)}, "spec": pod},
    }
    service = {"selector": labels_of(release.id), "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]}
    scaler = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": 1,
        "maxReplicas": cluster.max_replicas,
        "metrics": [
            {
                "type": "Pods",
                "pods": {"metric": {"name": "vllm_num_requests_waiting"}, "target": {"type": "AverageValue", "averageValue": "5"}},
            }
        ],
        "behavior": {"scaleUp": {"stabilizationWindowSeconds": 30}, "scaleDown": {"stabilizationWindowSeconds": 600}},
    }
    made = (
        ("apps/v1", "Deployment", deployment),
        ("v1", "Service", service),
        ("policy/v1", "PodDisruptionBudget", {"minAvailable": 1, "selector": selector}),
        ("autoscaling/v2", "HorizontalPodAutoscaler", scaler),
    )
    return [_object(version, kind, name, release.id, cluster.namespace, spec) for version, kind, spec in made]


def labels_of(release_id: str) -> dict[str, str]:
    """What the engine's pods are selected by."""
    return {"app.kubernetes.io/name": "engine", "app.kubernetes.io/component": "engine", RELEASE: release_id}


def _object(version: str, kind: str, name: str, release_id: str, namespace: str, spec: Object) -> Object:
    labels = labels_of(release_id) | {MANAGED_BY: "tunegate"}
    metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": {SPEC: digest_of(spec)}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _pod(release: Release, settings: Settings, cluster: ClusterSettings) -> Object:
    home = str(settings.home)
    spec: Object = {
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": math.ceil(settings.drain_s) + 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_engine(release, settings, cluster)],
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": cluster.claim, "readOnly": True}}
            if cluster.claim
            else {"name": "home", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}},
        ],
    }
    if not cluster.claim:
        if not settings.artefact_url:
            raise ValueError("neither TUNEGATE_CLUSTER_CLAIM nor TUNEGATE_ARTEFACT_URL says where its pod gets the model")
        fetch = {
            "name": "fetch",
            "image": cluster.image,
            "command": ["python", "-m", "serving.artefact_store", release.model_digest, str(release.model_dir)],
            "env": [{"name": "TUNEGATE_ARTEFACT_URL", "value": settings.artefact_url}, {"name": "TUNEGATE_HOME", "value": home}],
            "envFrom": [{"secretRef": {"name": "artefacts", "optional": True}}],
            "securityContext": _SECURITY,
            "volumeMounts": [{"name": "home", "mountPath": home}, {"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108 - inside the pod
        }
        spec["initContainers"] = [fetch]
    return spec


def _engine(release: Release, settings: Settings, cluster: ClusterSettings) -> Object:
    serving = release.serving
    gpus = str(serving.tensor_parallel * serving.pipeline_parallel)
    told = arguments(release.model_dir, release.id, "0.0.0.0", PORT, serving, drain_s=settings.drain_s, on_cpu=False)  # noqa: S104
    health = {"httpGet": {"path": "/health", "port": "http"}}
    return {
        "name": "vllm",
        "image": cluster.image,
        "command": ["python", "-m", "vllm.entrypoints.openai.api_server"],
        "args": list(told),
        "env": [{"name": "HF_HUB_OFFLINE", "value": "1"}, {"name": "VLLM_NO_USAGE_STATS", "value": "1"}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": {**health, "periodSeconds": 10, "failureThreshold": max(1, math.ceil(settings.start_timeout_s / 10))},
        "readinessProbe": health,
        "livenessProbe": {**health, "periodSeconds": 20, "failureThreshold": 6},
        "resources": {
            "requests": {"cpu": "4", "memory": cluster.memory, "nvidia.com/gpu": gpus},
            "limits": {"memory": cluster.memory, "nvidia.com/gpu": gpus},
        },
        "securityContext": _SECURITY,
        "volumeMounts": [
            {"name": "home", "mountPath": str(settings.home), "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - inside the pod
            {"name": "scratch", "mountPath": "/home/tunegate"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - inside the pod
        ],
    }
