"""What runs by itself: `deploy/prefect.yaml` read with all its faults at once.

The file is Prefect's own format, narrowed to what tunegate can vouch for: flows of ours, schedules that fire again, and triggers that
are debounced. Knows nothing of a server. Next: `deploy_cli.py`; `registering.py`, which hands it to one.
"""

import asyncio
import inspect
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from prefect import Flow
from prefect.flows import load_flow_from_entrypoint
from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from evaluation.documents import Document, explain, read_yaml
from evaluation.errors import nearest
from flows.container_paths import here, path_fault, recipe_faults, surroundings_faults
from flows.errors import DeploymentError, RecipeError
from flows.events import EVENTS
from flows.job_variables import variable_faults
from flows.recipe import load_recipe
from flows.work_pools import Pool
from training.errors import TunegateError

Entrypoint = Literal[
    "flows.pipeline.retrain", "flows.pipeline.promote", "flows.operations.evaluate_again", "flows.operations.roll_back",
    "flows.operations.watch", "flows.operations.look_for_data", "flows.operations.collect", "flows.upkeep.make_room",
    "flows.operations.take_up",
]  # fmt: skip
# A storm of events within this time starts one run.
DEBOUNCE_S = 600.0
_TEMPLATE = "{{"
_FILES = ("recipe", "suite")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Schedule(_Part):
    """When it runs. Exactly one of `cron`, `interval` and `rrule`."""

    cron: str | None = Field(default=None, description="five fields: minute, hour, day of month, month, day of week")
    interval: float | None = Field(default=None, ge=60, description="seconds between two runs")
    rrule: str | None = Field(default=None, description="an RFC 5545 rule, for what cron cannot say")
    timezone: str = Field(default="UTC", description="a name of the IANA database, as Europe/Berlin")
    active: bool = Field(default=True, description="false registers it, but does not run it")

    @model_validator(mode="after")
    def _fires(self) -> Self:
        given = [key for key in ("cron", "interval", "rrule") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of cron, interval and rrule (given: {', '.join(given) or 'none'})")
        if self.timezone not in available_timezones():
            close = get_close_matches(self.timezone, available_timezones(), n=1) or ["Europe/Berlin, for example"]
            raise ValueError(f"timezone {self.timezone!r} is not in the IANA database; did you mean {close[0]}?")
        if self.cron is not None and len(self.cron.split()) != 5:
            raise ValueError(f"cron {self.cron!r} has {len(self.cron.split())} fields, not 5 (minute hour day month weekday)")
        try:
            prefect = self.as_prefect()
        except ValueError as error:
            raise ValueError(f"{given[0]} {getattr(self, given[0])!r} cannot be read: {_reason(error)}") from error
        try:
            following = asyncio.run(prefect.get_dates(1))
        except ValueError:  # croniter has looked fifty years ahead
            following = []
        if not following:
            raise ValueError(f"{given[0]} {getattr(self, given[0])!r} lies in the past or names no date that comes: it would never run")
        return self

    def as_prefect(self) -> CronSchedule | IntervalSchedule | RRuleSchedule:
        """The schedule as Prefect's server computes it."""
        if self.cron is not None:
            return CronSchedule(cron=self.cron, timezone=self.timezone)
        if self.rrule is not None:
            return RRuleSchedule(rrule=self.rrule, timezone=self.timezone)
        return IntervalSchedule.model_validate({"interval": self.interval, "timezone": self.timezone})

    def in_words(self) -> str:
        """As `tunegate deploy` prints it, with the next time it fires."""
        rule = self.cron or self.rrule or f"every {self.interval:g} s"
        (following,) = asyncio.run(self.as_prefect().get_dates(1))
        return f"{rule} {self.timezone}, next {following.astimezone(ZoneInfo(self.timezone)):%Y-%m-%d %H:%M}"


class Trigger(_Part):
    """On which event it runs. Further events within `within` seconds of one that started a run start none."""

    type: Literal["event"] = "event"
    enabled: bool = True
    expect: tuple[str, ...] = Field(min_length=1, description="events: those of tunegate, or prefect.…")
    match: dict[str, str | list[str]] = Field(default={}, description="label of the event's resource: value, or values")
    for_each: tuple[str, ...] = Field(default=(), description="labels; events that differ in one are debounced apart")
    within: float = Field(default=DEBOUNCE_S, ge=1, le=86_400, description="seconds in which a storm of events is one")
    parameters: dict[str, Any] = Field(default={}, description="parameters of the run; `{{ event.resource[…] }}` takes them from the event")

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        for event in self.expect:
            if event not in EVENTS and not event.startswith("prefect."):
                raise ValueError(f"nobody tells the event {event!r}{nearest(event, EVENTS)}")
        return self


class Deployment(_Part):
    """One flow with its parameters and what starts it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    entrypoint: Entrypoint
    description: str = ""
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    schedules: tuple[Schedule, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    work_pool: Pool

    @property
    def flow(self) -> Flow[Any, Any]:
        """The flow itself."""
        return load_flow_from_entrypoint(self.entrypoint, use_placeholder_flow=False)

    @property
    def files(self) -> dict[str, Path]:
        """Parameter -> the file it names, as whoever runs it will find it."""
        given = {name: value for name, value in self.parameters.items() if name in _FILES}
        return {name: Path(value) for name, value in given.items() if isinstance(value, str) and _TEMPLATE not in value}

    @property
    def unread(self) -> tuple[str, ...]:
        """Parameters whose files a container will find, and this machine does not have: nobody has looked into them."""
        return tuple(name for name, path in self.files.items() if self.work_pool.contained and here(path, self.work_pool) is None)


class DeploymentFile(_Part):
    """Everything that is registered together."""

    definitions: Any = Field(default=None, description="whatever several deployments have in common, for YAML's anchors")
    name: Literal["tunegate"] = "tunegate"
    prefect_version: str | None = Field(default=None, alias="prefect-version")
    deployments: tuple[Deployment, ...]


def read_deployments(path: Path) -> DeploymentFile:
    """Read a file of deployments; paths in it are relative to it.

    Raises:
        DeploymentError: every fault at once, each with file, line and key.
    """
    problems: list[str] = []
    document = read_yaml(path, problems)
    if document is None:
        raise _unusable(problems)
    try:
        made = DeploymentFile.model_validate(document.value)
    except ValidationError as error:
        raise _unusable(problems + explain(error, DeploymentFile, document)) from error
    problems += [*_duplicates(made, document), *_two_types(made, document)]
    problems += [] if made.deployments else [f"{path}:1: deployments: there is none"]
    resolved = []
    for number, given in enumerate(made.deployments):
        deployment = given.model_copy(update={"parameters": _resolved(given.parameters, path.absolute().parent)})
        for loc, fault in _faults(deployment):
            problems.append(f"{document.where(('deployments', number, *loc))}: {deployment.name}: {fault}")
        resolved.append(deployment)
    if problems:
        raise _unusable(problems)
    return made.model_copy(update={"deployments": tuple(resolved)})


def _faults(deployment: Deployment) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What only the flow knows: its parameters, and whether the recipe they name can be used."""
    known = inspect.signature(deployment.flow.fn).parameters
    required = {name for name, each in known.items() if each.default is inspect.Parameter.empty}
    if deployment.schedules and (missing := sorted(required - deployment.parameters.keys())):
        yield ("schedules",), f"it runs on a schedule, and nobody is there to give {', '.join(missing)}"
    given: list[tuple[tuple[str | int, ...], dict[str, Any]]] = [(("parameters",), deployment.parameters)]
    for number, trigger in enumerate(deployment.triggers):
        together = {**deployment.parameters, **trigger.parameters}
        given.append((("triggers", number, "parameters"), trigger.parameters))
        if missing := sorted(required - together.keys()):
            yield ("triggers", number), f"it runs on an event, and nobody is there to give {', '.join(missing)}"
    for loc, parameters in given:
        for name in sorted(parameters.keys() - known.keys()):
            yield (*loc, name), f"{deployment.flow.name} has no parameter {name!r}{nearest(name, list(known))}"
    if not deployment.parameters.keys() - known.keys():
        yield from _values_of(deployment, required)
    yield from _faults_of_the_place(deployment)


def _faults_of_the_place(deployment: Deployment) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What the pool would not take, and what a container of it would not find."""
    pool = deployment.work_pool
    yield from ((("work_pool", "job_variables", *loc), f"{'.'.join(map(str, loc))}: {told}") for loc, told in variable_faults(pool))
    if not pool.contained:
        return
    yield from surroundings_faults(deployment.flow.name, pool)
    for name, path in deployment.files.items():
        if fault := path_fault(path, pool):
            yield ("parameters", name), fault


def _values_of(deployment: Deployment, required: set[str]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    given, pool = deployment.parameters, deployment.work_pool
    if required <= given.keys():
        try:
            deployment.flow.validate_parameters(given)
        except (ValueError, TypeError) as error:
            yield ("parameters",), _first_line(error)
    path = deployment.files.get("recipe")
    if path is not None and pool.contained:
        path = here(path, pool)
    if path is not None:
        try:
            recipe = load_recipe(path)
            if pool.contained:
                yield from ((("parameters", "recipe"), told) for told in recipe_faults(recipe, path, deployment.flow.name, pool))
        except RecipeError as error:
            yield from ((("parameters", "recipe"), problem) for problem in error.problems)
        except TunegateError as error:
            yield ("parameters", "recipe"), error.what


def _resolved(parameters: dict[str, Any], folder: Path) -> dict[str, Any]:
    paths = {name: value for name, value in parameters.items() if name in _FILES and isinstance(value, str)}
    return {**parameters, **{name: str((folder / Path(value).expanduser()).resolve()) for name, value in paths.items()}}


def _duplicates(made: DeploymentFile, document: Document) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for number, deployment in enumerate(made.deployments):
        key = (deployment.entrypoint, deployment.name)
        if key in seen:
            yield f"{document.where(('deployments', number, 'name'))}: {deployment.name!r} is there twice: one would replace the other"
        seen.add(key)


def _two_types(made: DeploymentFile, document: Document) -> Iterator[str]:
    kinds: dict[str, str] = {}
    for number, deployment in enumerate(made.deployments):
        pool = deployment.work_pool
        if kinds.setdefault(pool.name, pool.type) != pool.type:
            where = document.where(("deployments", number, "work_pool", "type"))
            yield f"{where}: {deployment.name}: the pool {pool.name!r} is of the type {kinds[pool.name]} above, and of {pool.type} here"


def _reason(error: Exception) -> str:
    """The innermost sentence of a pydantic error."""
    faults = error.errors(include_url=False) if isinstance(error, ValidationError) else []
    return str(faults[0]["msg"]).removeprefix("Value error, ") if faults else str(error)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])


def _unusable(problems: list[str]) -> DeploymentError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return DeploymentError(
        f"{count} in the deployments:\n" + "\n".join(f"  {problem}" for problem in problems),
        why="nothing was registered: a schedule that is half understood runs at another time than you meant",
        do="mend the lines above; deploy/prefect.yaml is an example with every key",
    )
