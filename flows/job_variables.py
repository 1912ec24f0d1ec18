"""Faults in a deployment's job variables, held against the base job template of the worker that would read them.

Prefect takes any variable that a template does not name, and never looks at it again: a training with `gpu: 1` for `gpus: 1` would
wait for ever without a GPU, or run without one. Knows nothing of files; who calls puts file and line before each fault.
Next: `work_pools.py` for the templates, `container_paths.py` for what a container sees.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from pydantic import SecretStr

from evaluation.errors import nearest
from flows.work_pools import Pool, Template, template_of
from serving.notify_settings import NotifySettings
from serving.settings import Settings
from training.data.read_secrets import masked

Loc = tuple[str | int, ...]
Fault = tuple[Loc, str]

_REFERENCE = re.compile(r"^\{\{.*\}\}$", re.DOTALL)
# A Prefect variable is no place for a secret: it is shown to everybody who sees the server.
_KEPT_APART = re.compile(r"^\{\{\s*(prefect\.blocks\.|\$)")
_SECRET_NAME = re.compile(r"((^|_)(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|APIKEY|CREDENTIALS?|AUTH_STRING)|_KEY)$", re.IGNORECASE)
_DRIVERS = {"docker": "prefect-docker", "kubernetes": "prefect-kubernetes"}


def variable_faults(pool: Pool) -> Iterator[Fault]:
    """Every fault of a deployment's job variables, each with the keys that lead to it."""
    try:
        template = template_of(pool.type)
    except ImportError as error:
        package = _DRIVERS.get(pool.type, pool.type)
        yield (), f"a pool of the type {pool.type} needs the package {package} ({error.name} is missing): pip install '{package}'"
        return
    secrets = list(secrets_in_clear(pool.job_variables))
    yield from ((loc, _in_clear(loc, pool)) for loc in secrets)
    # A message about a value shows the value.
    yield from ((loc, told) for loc, told in misfits(template, pool.job_variables) if not any(each[: len(loc)] == loc for each in secrets))
    if pool.contained:
        yield from _image_faults(pool.job_variables.get("image"))
    if pool.type == "kubernetes":
        yield from _mount_faults(pool.job_variables)
    if pool.job_variables.get("network_mode") == "host" and pool.job_variables.get("pid_mode") != "host":
        yield (
            ("network_mode",),
            "with the machine's network a container has its name too, and others would look for its processes there, find none, and "
            "take its runs for dead: add pid_mode: host",
        )


def misfits(template: Template, variables: dict[str, Any]) -> Iterator[Fault]:
    """What a base job template does not know, or knows with another type. References are resolved by the worker, and not looked into."""
    schema = template.get("variables", {})
    known = schema.get("properties", {})
    for name in sorted(variables.keys() - known.keys()):
        yield (name,), f"the base job template has no variable {name!r}{nearest(name, known)}"
    plain = {name: value for name, value in variables.items() if name in known}
    for error in Draft202012Validator(schema).iter_errors(plain):
        if not (isinstance(error.instance, str) and _REFERENCE.match(error.instance)):
            yield tuple(error.absolute_path), _in_words(error)


def secrets_in_clear(value: Any, loc: Loc = ()) -> Iterator[Loc]:
    """Where a password, key or token stands as it is."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from secrets_in_clear(inner, (*loc, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from secrets_in_clear(inner, (*loc, number))
    elif value is not None and str(value) and not _KEPT_APART.match(str(value)) and _is_secret(str(loc[-1]) if loc else "", str(value)):
        yield loc


def settings_of(kind: type) -> frozenset[str]:
    """The environment variables whose setting has this type, or may have it."""
    found = set()
    for model in (Settings, NotifySettings):
        prefix = str(model.model_config.get("env_prefix", ""))
        for name, field in model.model_fields.items():
            if kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
                found.add(f"{prefix}{name}".upper())
    return frozenset(found)


def _is_secret(name: str, value: str) -> bool:
    if "://" in value and masked(value.partition("?")[0]) != value.partition("?")[0]:
        return True
    if name == "TUNEGATE_REGISTRY_URL" or name in settings_of(Path):
        return False
    return bool(_SECRET_NAME.search(name)) or name in settings_of(SecretStr)


def _in_clear(loc: Loc, pool: Pool) -> str:
    where = "a secret of the cluster, named in env_from" if pool.type == "kubernetes" else "a block: {{ prefect.blocks.secret.NAME }}"
    return f"{loc[-1]} holds a secret, which would stand in clear in Prefect's database and UI: put it into {where}"


def _image_faults(image: object) -> Iterator[Fault]:
    if image is None:
        yield ("image",), "is missing: the worker would take Prefect's own image, in which tunegate is not installed"
    elif isinstance(image, str) and not _REFERENCE.match(image):
        tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
        if "@sha256:" not in image and tag in ("", "latest"):
            yield ("image",), f"{image!r} is another image tomorrow: name a tag or a digest, such as {image.partition(':')[0]}:gpu"


def _mount_faults(variables: dict[str, Any]) -> Iterator[Fault]:
    volumes, mounts = _named(variables.get("volumes")), _named(variables.get("volume_mounts"))
    known = {str(each["name"]) for _, each in volumes}
    for number, mount in mounts:
        if str(mount["name"]) not in known:
            yield ("volume_mounts", number, "name"), f"there is no volume {mount['name']!r}{nearest(str(mount['name']), known)}"
    for key, entries, name in (("volumes", volumes, "name"), ("volume_mounts", mounts, "mountPath")):
        taken = {"scratch", "shared-memory"} if name == "name" else {"/tmp", "/home/tunegate", "/dev/shm"}  # noqa: S108
        for number, each in entries:
            if each.get(name) in taken:
                yield (key, number, name), f"{each[name]!r} is there already"
            taken.add(str(each.get(name)))


def _named(entries: object) -> list[tuple[int, dict[str, Any]]]:
    found: Iterable[tuple[int, Any]] = enumerate(entries) if isinstance(entries, list) else ()
    return [(number, each) for number, each in found if isinstance(each, dict) and "name" in each]


def _in_words(error: ValidationError) -> str:
    if error.validator == "anyOf" and error.context:  # of this, or nothing: what it should be stands first
        return _in_words(error.context[0])
    if error.validator == "pattern":
        example = " or ".join(str(each) for each in error.schema.get("examples", [error.validator_value]))
        return f"{error.instance!r} is not written like {example}"
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        return "; ".join(f"unknown key {name!r}{nearest(name, known)}" for name in sorted(error.instance.keys() - known.keys()))
    if error.validator in ("minProperties", "maxProperties"):
        choices = ", ".join(name for name in error.schema["properties"] if name != "name")
        return f"exactly one of {choices} is expected"
    return str(error.message)
