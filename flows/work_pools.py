"""Work pools of the types process, docker and kubernetes: what a job is made of, on the base job templates of Prefect's own workers.

A template of a worker is taken as it is installed and bent where our image needs it: its entry point is `tunegate`, it runs as nobody
in particular, and what a training needs (GPUs, volumes, nodes, secrets) becomes variables with a schema, of which Prefect's UI draws
a form and against which `job_variables.py` holds a file. Neither Docker nor a cluster was at hand: what jobs look like is tested, and not
that they start there. Knows nothing of files and servers. Next: `job_variables.py`.
"""

import copy
from typing import Any, Literal, assert_never

from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessWorker
from pydantic import BaseModel, ConfigDict, Field

PoolType = Literal["process", "docker", "kubernetes"]
Queue = Literal["training", "promotion", "watching"]
Template = dict[str, Any]
Schema = dict[str, Any]

# Of deploy/containers/Dockerfile.
IMAGE_HOME, IMAGE_CODE, IMAGE_USER = "/var/lib/tunegate", "/srv/tunegate", 10001
# The image's entry point is `tunegate`; a worker says what to run from the first word on.
_ENTRY = ["/usr/bin/env"]
GPU = "nvidia.com/gpu"
KEPT_S = 86_400

_QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$", "examples": ["500m", "64Gi"]}
_SIZE: Schema = {"type": "string", "pattern": r"^[0-9]+[bkmg]?$", "examples": ["512m", "64g"]}
_NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", "examples": ["tunegate"]}
_PLACE: Schema = {"type": "string", "pattern": "^/", "examples": ["/var/lib/tunegate"]}
_WORD: Schema = {"type": "string", "minLength": 1}
_TRUTH: Schema = {"type": "boolean"}


class Pool(BaseModel):
    """Where it runs: a work pool and one of the queues below, which bound what runs at the same time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="tunegate", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    type: PoolType = Field(default="process", description="a process of the worker's machine, a container there, or a Job of a cluster")
    work_queue_name: Queue = Field(description="training: one run per GPU; promotion: one at a time; watching: many")
    job_variables: dict[str, Any] = Field(default={}, description="variables of the pool's base job template")

    @property
    def contained(self) -> bool:
        """Whether its runs see another disk and another loopback than the server does."""
        return self.type != "process"

    @property
    def env(self) -> dict[str, Any]:
        """The variables of its runs' environment, as far as the file says."""
        env = self.job_variables.get("env", {})
        return env if isinstance(env, dict) else {}


def template_of(kind: PoolType) -> Template:
    """The base job template of a pool that we make.

    Raises:
        ImportError: the worker of this type is not installed; `name` of the error says what is missing.
    """
    template: Template = copy.deepcopy(worker_of(kind).get_default_base_job_template())
    match kind:
        case "process":
            return template
        case "docker":
            return _for_containers(template)
        case "kubernetes":
            return _for_jobs(template)
        case _:
            assert_never(kind)


def worker_of(kind: PoolType) -> type[BaseWorker[Any, Any, Any]]:
    """Prefect's worker of this type; those of docker and kubernetes are extras."""
    worker: type[BaseWorker[Any, Any, Any]]
    match kind:
        case "process":
            worker = ProcessWorker
        case "docker":
            from prefect_docker.worker import DockerWorker

            worker = DockerWorker
        case "kubernetes":
            from prefect_kubernetes.worker import KubernetesWorker

            worker = KubernetesWorker
        case _:
            assert_never(kind)
    return worker


def with_scratch(variables: dict[str, Any]) -> dict[str, Any]:
    """A Job's variables with what a pod with a read-only disk needs besides the volumes that are asked for."""
    asked = {key: list(variables.get(key, [])) for key in ("volumes", "volume_mounts")}
    return {**variables, "volumes": asked["volumes"] + _SCRATCH, "volume_mounts": asked["volume_mounts"] + _SCRATCH_MOUNTS}


_SCRATCH: list[dict[str, Any]] = [
    {"name": "scratch", "emptyDir": {}},
    {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}},
]
_SCRATCH_MOUNTS: list[dict[str, Any]] = [
    {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 -- inside the pod, and its own
    {"name": "scratch", "mountPath": "/home/tunegate"},
    {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108
]


def _for_containers(template: Template) -> Template:
    """Docker's: nothing privileged, and the two things of docker-py that a training needs as variables of their own."""
    properties = template["variables"]["properties"]
    for name in ("privileged", "container_create_kwargs"):
        del properties[name]
    properties["volumes"]["items"] |= {"pattern": r"^[^:]+:/[^:]*(:(ro|rw|z|Z))?$", "examples": ["/srv/tunegate:/var/lib/tunegate"]}
    properties["mem_limit"] = _or_nothing(_SIZE, "Memory the container may take.")
    properties["shm_size"] = {**_SIZE, "default": "2g", "description": "Size of /dev/shm, through which processes exchange tensors."}
    properties["device_requests"] = _list(
        "GPUs, as docker-py writes them: {driver: nvidia, count: 1, capabilities: [[gpu]]}; count -1 is all.",
        _object(
            driver=_WORD,
            count={"type": "integer", "minimum": -1},
            device_ids={"type": "array", "items": _WORD},
            capabilities={"type": "array", "items": {"type": "array", "items": _WORD}, "minItems": 1},
            options={"type": "object", "additionalProperties": {"type": "string"}},
            required=("capabilities",),
        ),
    )
    properties["pid_mode"] = {"enum": ["host"], "description": "With network_mode host: the machine's process numbers, as its name."}
    configuration = template["job_configuration"]
    configuration["privileged"] = False
    configuration["container_create_kwargs"] = {
        "entrypoint": _ENTRY,
        "init": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "healthcheck": {"test": ["NONE"]},  # the image's own asks a gateway, and there is none in here
        "shm_size": "{{ shm_size }}",
        "device_requests": "{{ device_requests }}",
        "pid_mode": "{{ pid_mode }}",
    }
    return template


def _for_jobs(template: Template) -> Template:
    """Kubernetes': the pod of deploy/kubernetes/training, with its needs as variables."""
    properties = template["variables"]["properties"]
    for name in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"):
        properties[name] = _or_nothing(_QUANTITY, properties[name]["description"])
    properties["service_account_name"] = _or_nothing(_NAME, "Its token is not mounted: a run does not speak to the cluster.")
    properties["namespace"] |= _NAME | {"default": "tunegate"}
    properties["finished_job_ttl"]["default"] = KEPT_S
    properties |= _needs_of_a_job()
    spec = template["job_configuration"]["job_manifest"]["spec"]
    spec["template"]["metadata"] = {"labels": {"app.kubernetes.io/component": "stage"}}  # what the network policies know it by
    pod = spec["template"]["spec"]
    pod |= {
        "enableServiceLinks": False,  # or TUNEGATE_PORT would become tcp://…
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": IMAGE_USER,
            "runAsGroup": IMAGE_USER,
            "fsGroup": IMAGE_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": "{{ node_selector }}",
        "tolerations": "{{ tolerations }}",
        "volumes": "{{ volumes }}",
    }
    container = pod["containers"][0]
    container |= {
        "command": _ENTRY,
        "envFrom": "{{ env_from }}",
        "volumeMounts": "{{ volume_mounts }}",
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
    }
    container["resources"]["limits"][GPU] = "{{ gpus }}"
    return template


def _needs_of_a_job() -> dict[str, Schema]:
    by_name = _object(name=_NAME, optional=_TRUTH, required=("name",))
    tolerated = dict.fromkeys(("key", "operator", "value", "effect"), _WORD)
    return {
        "gpus": {"type": "integer", "minimum": 1, "description": "GPUs of the pod."},
        "node_selector": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Labels a node must have."},
        "tolerations": _list("Taints it runs beside.", _object(**tolerated, tolerationSeconds={"type": "integer"}, required=())),
        "env_from": _list(
            "Secrets and config maps whose keys become its environment: the place for passwords.",
            _one_of(secretRef=by_name, configMapRef=by_name),
        ),
        "volumes": _list("Volumes of the pod.", _volume()) | {"default": _SCRATCH},
        "volume_mounts": _list(
            "Where in the container each volume is found.",
            _object(name=_NAME, mountPath=_PLACE, subPath=_WORD, readOnly=_TRUTH, required=("name", "mountPath")),
        )
        | {"default": _SCRATCH_MOUNTS},
    }


def _volume() -> Schema:
    """A folder of the node is not among them: whoever may name one there may read the node's secrets."""
    items = {"type": "array", "items": _object(key=_WORD, path=_WORD, required=("key", "path"))}
    kinds = {
        "persistentVolumeClaim": _object(claimName=_NAME, readOnly=_TRUTH, required=("claimName",)),
        "configMap": _object(name=_NAME, items=items, optional=_TRUTH, required=("name",)),
        "secret": _object(secretName=_NAME, items=items, optional=_TRUTH, required=("secretName",)),
        "nfs": _object(server=_WORD, path=_PLACE, readOnly=_TRUTH, required=("server", "path")),
        "emptyDir": _object(medium={"enum": ["", "Memory"]}, sizeLimit=_QUANTITY, required=()),
    }
    return _object(name=_NAME, **kinds, required=("name",)) | {"minProperties": 2, "maxProperties": 2}


def _object(*, required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": list(required)}


def _one_of(**properties: Schema) -> Schema:
    return _object(required=(), **properties) | {"minProperties": 1, "maxProperties": 1}


def _list(description: str, items: Schema) -> Schema:
    return {"type": "array", "items": items, "description": description}


def _or_nothing(schema: Schema, description: str) -> Schema:
    return {"anyOf": [schema, {"type": "null"}], "default": None, "description": description}
