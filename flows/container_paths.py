"""What a run in a container can reach: folders that are mounted, a registry that is not a file on another disk, engines that are
not on another loopback.

A path in a file of deployments for such a pool is a path in the container. What lies behind a mount is read here only where this
machine has it. Knows nothing of job variables' types; `job_variables.py` has looked at those. Next: `deployments.py`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flows.job_variables import Fault, Loc, settings_of
from flows.recipe import Recipe
from flows.work_pools import IMAGE_CODE, IMAGE_HOME, Pool
from serving.settings import Settings

HOME, REGISTRY, ARTEFACTS = "TUNEGATE_HOME", "TUNEGATE_REGISTRY_URL", "TUNEGATE_ARTEFACT_URL"
_LOOPBACK = re.compile(r"://([^/@]*@)?(localhost|127\.\d+\.\d+\.\d+|\[::1\])([:/]|$)")
_TEMPLATE = "{{"
_ENV: Loc = ("work_pool", "job_variables", "env")
_ASKS_ENGINES = ("retrain", "evaluate")
_ASKS_THE_GATEWAY = ("promote", "rollback", "watch")


@dataclass(frozen=True)
class Mount:
    """A folder in the container; `source` is the folder of this machine that it is, where it is one."""

    target: Path
    source: Path | None


def mounts_of(pool: Pool) -> tuple[Mount, ...]:
    """Every mount that is written as it should be."""
    if pool.type == "docker":
        parts = [str(each).split(":") for each in _entries(pool, "volumes")]
        return tuple(Mount(Path(each[1]), Path(each[0]) if each[0].startswith("/") else None) for each in parts if len(each) > 1)
    mounts = [each for each in _entries(pool, "volume_mounts") if isinstance(each, dict) and "mountPath" in each]
    return tuple(Mount(Path(str(each["mountPath"])), None) for each in mounts)


def here(path: Path, pool: Pool) -> Path | None:
    """The file of this machine that a container will find at `path`; None where it is not to be had here."""
    for mount in mounts_of(pool):
        if mount.source is not None and path.is_relative_to(mount.target):
            path = mount.source / path.relative_to(mount.target)
            break
    return path if path.is_file() else None


def surroundings_faults(flow: str, pool: Pool) -> Iterator[Fault]:
    """What the flow asks for or the environment names, and the container does not have."""
    env, mounts = pool.env, mounts_of(pool)
    if flow in _ASKS_THE_GATEWAY and not _shares_loopback(pool):
        yield (
            ("work_pool", "type"),
            f"{flow} asks the gateway at the address it listens on, which is the server's own: have it run by a pool of the type process "
            "on the server's machine; it takes no GPU",
        )
    home = str(env.get(HOME) or IMAGE_HOME)
    if not _is_there(Path(home), mounts) and _TEMPLATE not in home:
        yield (
            ("work_pool", "job_variables"),
            f"{home} ({HOME}) is not mounted: data, checkpoints and models would go with the container. Mount the server's there, "
            "under the same path: the registry names a model's folder once",
        )
    yield from _registry_faults(pool, home, mounts)
    paths = {name: str(value) for name, value in env.items() if name in settings_of(Path) - {HOME}}
    address = str(env.get(ARTEFACTS) or "")
    if address and _is_local(address):
        paths[ARTEFACTS] = re.sub("^(file|local):(//)?", "", address)
    for name, path in paths.items():
        if path and _TEMPLATE not in path and not _is_there(Path(path), mounts):
            yield (*_ENV, name), f"{name} names {path}, where the container has nothing mounted"
    if not _shares_loopback(pool):
        for name in sorted(name for name, value in env.items() if _LOOPBACK.search(str(value))):
            yield (*_ENV, name), f"{name} names the loopback, which is the container's own: give the host's name"


def _registry_faults(pool: Pool, home: str, mounts: tuple[Mount, ...]) -> Iterator[Fault]:
    url = str(pool.env.get(REGISTRY) or "")
    if _TEMPLATE in url or (not url and _entries(pool, "env_from")):
        return  # it comes from where nobody here looks
    is_file = not url or url.startswith("sqlite:")
    if pool.type == "kubernetes" and is_file:
        yield (
            _ENV,
            f"the registry would be SQLite ({url or home + '/registry.db'}), which several nodes cannot share: keep {REGISTRY}, a "
            "postgresql://…, in a secret, and name that in env_from",
        )
    elif is_file and url and not _is_there(Path(url.removeprefix("sqlite:///")), mounts):
        yield (*_ENV, REGISTRY), f"{url} is no file in a mounted folder: the container would begin a registry of its own"


def for_containers(settings: Settings) -> dict[str, str]:
    """What runs in containers are told of this machine's settings: where models are kept, if that is an address and no folder."""
    address = settings.artefact_url
    return {ARTEFACTS: address} if address and not _is_local(address) else {}


def path_fault(path: Path, pool: Pool) -> str | None:
    """Why a parameter's path cannot be used in the container."""
    if _is_there(path, mounts_of(pool)):
        return None
    return (
        f"{path} is a path of this machine; the container of the pool {pool.name!r} has nothing mounted there. Put the file on a volume "
        "that is mounted, and give its absolute path as the container sees it"
    )


def recipe_faults(recipe: Recipe, read_from: Path, flow: str, pool: Pool) -> Iterator[str]:
    """What a recipe names and the container does not reach."""
    mounts = mounts_of(pool)
    sources = tuple(each.source for each in mounts if each.source is not None and read_from.is_relative_to(each.source))
    for key, path in _paths_in(recipe):
        if not _is_there(path, mounts) and not any(path.is_relative_to(source) for source in sources):
            yield f"{read_from}: {key}: {path} is not on a volume that the container has mounted"
    if flow in _ASKS_ENGINES and recipe.serving.engine == "vllm" and not _shares_loopback(pool):
        instead = ", or job_variables.network_mode: host" if pool.type == "docker" else ""
        yield (
            f"{read_from}: serving.engine: vllm listens on the loopback of the server's machine, which a container of {pool.name!r} "
            f"does not reach: set outside{instead}"
        )


def _paths_in(value: Any, key: str = "") -> Iterator[tuple[str, Path]]:
    """Each absolute path of a recipe, with its keys."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _paths_in(getattr(value, name), f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _paths_in(inner, f"{key}.{number}")
    elif (isinstance(value, Path) or key == "model.base") and Path(value).is_absolute():
        yield key, Path(value)


def _shares_loopback(pool: Pool) -> bool:
    return pool.type == "docker" and pool.job_variables.get("network_mode") == "host"


def _is_local(address: str) -> bool:
    return address.startswith(("/", ".", "file:", "local:"))


def _entries(pool: Pool, name: str) -> list[Any]:
    found = pool.job_variables.get(name)
    return found if isinstance(found, list) else []


def _is_there(path: Path, mounts: tuple[Mount, ...]) -> bool:
    """Whether the container has it: on a mount, or in the image."""
    return any(path.is_relative_to(mount.target) for mount in mounts) or path.is_relative_to(IMAGE_CODE)
