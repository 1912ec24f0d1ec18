"""One line through a whole installation, from a model made on the spot to a champion, and what it has left behind.

Nobody starts anything twice by hand: what was asked for once has to happen. Next: `system_kills.py`.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from flows.registering import HEARTBEAT_S, Environments, Limits, Silence, register
from serving.errors import RegistryError
from serving.keys import Scope
from serving.lifecycle import State
from serving.migrate import upgrade
from serving.records import Release, SlotState
from tests.benchmarks.line_kills import digests
from tests.benchmarks.whole_system import Callers, Place, Service
from tests.fakes_flows import ROOT, until
from tests.fakes_postgres import Cluster
from tests.fakes_prefect import PrefectServer, answers
from tests.fakes_sinks import HttpSink, http_sink
from tests.fakes_suites import many_prompts, write_suite
from tests.flows.test_deployed import moment, shipped
from training.records import digest_of

CANDIDATE = "clinic-2"
CLEAN = ("answer", "told to retry", "nobody there", "connection cut")
ROWS, PROMPTS, LOOK_EVERY_S = 48, 12, 60
SILENCE_S = HEARTBEAT_S + 15
_STAGES = {"fetch_base": "base", "prepare": "prepare", "sft": "sft", "merge": "merge"}
_UNREACHED = (RegistryError, httpx.HTTPError, OSError)


def write_recipe(folder: Path) -> Path:
    """A recipe whose model, rows and suites are so small that a line costs little more than the starts of its processes."""
    folder.mkdir(parents=True)
    # torch is not for this process.
    code = (
        f"from pathlib import Path; from tests.fakes_engine_tiny import write_tiny_model; write_tiny_model(Path({str(folder / 'tiny')!r}))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    rows = map(json.loads, (ROOT / "flows/recipes/clinic_en/sft.jsonl").read_text(encoding="utf-8").splitlines())
    short = [{"instruction": row["instruction"][:100], "output": row["output"][:150]} for row in rows if "instruction" in row][:ROWS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in short), encoding="utf-8")
    write_suite(folder / "suite", prompts=many_prompts(PROMPTS), max_tokens=8)
    write_suite(folder / "validation", max_tokens=8)
    recipe = {
        "name": "stormy",
        "model": {"base": str(folder / "tiny"), "max_length": 512},
        "data": {"sft": [{"path": "rows.jsonl"}]},
        "sft": {"method": "qlora", "r": 4, "epochs": 1, "batch_size": 4, "checkpoint_every_steps": 3},
        "merge": {"validation_suite": "validation", "max_new_tokens": 8},
        # One answer after another: the same model gives the same ones then.
        "evaluation": {"suite": "suite", "concurrency": 1, "perplexity": False, "forgetting": None},
        "gate": {"must": {"answer_units": {"min": 0}}, "min_prompts": PROMPTS},
        "serving": {"public_name": "clinic", "max_model_len": 512, "max_num_seqs": 8},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder / "recipe.yaml"


@dataclass
class System:
    """What all lines share, and the `tunegate serve` of the line that goes on."""

    cluster: Cluster
    prefect: PrefectServer
    server: Service
    worker: Service
    folder: Path
    recipe: Path
    serve: Service = field(init=False)

    def deployments(self, environment: Mapping[str, str]) -> None:
        """Register the shipped file; what was left behind is looked for more often than it says, or each kill would cost minutes."""
        rule = f"FREQ=SECONDLY;INTERVAL={LOOK_EVERY_S}"
        file = shipped(self.folder, self.recipe, datetime.now(UTC), looking="take_up", rule=rule)
        register(file, Limits(), Environments(environment), Silence(SILENCE_S, SILENCE_S))

    def ask_for(self, deployment: str, **parameters: str) -> None:
        """Have a shipped deployment run now."""
        found = httpx.get(f"{self.prefect.url}/deployments/name/{deployment}", timeout=60).raise_for_status().json()
        asked = {"state": {"type": "SCHEDULED"}, "parameters": {**found["parameters"], **parameters}}
        self.prefect.post(f"/deployments/{found['id']}/create_flow_run", asked)


@dataclass(frozen=True)
class Account:
    """What a line has left behind, as far as it has to be the same each time; `came` is what callers saw."""

    records: Mapping[str, str]
    steps: tuple[str, ...]
    audit: Mapping[str, int]
    notices: Mapping[str, int]
    told_again: int
    faults: tuple[str, ...]
    came: Mapping[str, int]

    def against(self, calm: "Account") -> tuple[str, ...]:
        """In what it differs from the undisturbed line's, and what nobody should have seen."""
        found = [f"{name} {getattr(self, name)} and not {getattr(calm, name)}" for name in ("records", "steps", "audit", "notices")
                 if getattr(self, name) != getattr(calm, name)]  # fmt: skip
        unclean = [f"callers saw {what} {count} times" for what, count in self.came.items() if what not in CLEAN]
        return (*found, *unclean, *self.faults)

    def in_words(self) -> str:
        """For the line of the report."""
        came = ", ".join(f"{count} {what}" for what, count in sorted(self.came.items()))
        notices = f"{sum(self.notices.values())} notices ({self.told_again} told twice under their own number)"
        return f"{len(self.steps)} steps, {sum(self.audit.values())} lines of audit, {notices}; callers: {came or 'none yet'}"


class Line:
    """A line under way, in a home and a registry of its own."""

    def __init__(self, system: System, number: int, place: Place, sink: HttpSink, stack: ExitStack) -> None:
        self.system, self.number, self.place, self.sink, self._stack = system, number, place, sink, stack
        self.began, self._ended = time.time(), 0.0
        self.failures, self._noticed = list[str](), set[str]()
        self.callers: Callers | None = None
        _, self._approver = place.registry.create_key("bob", [Scope.APPROVE])

    @classmethod
    @contextmanager
    def begun(cls, system: System, number: int) -> Iterator["Line"]:
        """Serve an empty registry, register the deployments, and ask for a training."""
        with ExitStack() as stack:
            sink = stack.enter_context(http_sink())
            registry = system.cluster.empty()
            upgrade(registry)
            more = {"TUNEGATE_GATEWAY_WORKERS": "2", "TUNEGATE_NOTIFY_WEBHOOK_URL": sink.url}
            place = Place(system.folder / f"line-{number}", system.prefect.url, registry, **more)
            system.deployments(place.environment)
            system.serve = place.service(system.prefect.env)
            stack.enter_context(system.serve.running())
            until(lambda: place.registry.server() is not None, 120, 0.5)
            system.ask_for("retrain/weekly")
            yield cls(system, number, place, sink, stack)

    def undisturbed(self, limit_s: float) -> None:
        """Let it go to its end."""

        def ended() -> bool:
            self.drive()
            return self.is_live() and self.is_whole()

        until(ended, limit_s, 0.5)

    def took_s(self) -> float:
        """Seconds from the question to the look that found it live."""
        return self._ended - self.began

    # What people do.

    def drive(self) -> None:
        """Approve what waits; begin to call once there is somebody to answer; write down runs that failed, and ask again for them."""
        with suppress(*_UNREACHED):
            if self.callers is None and self._champion_answers():
                self.callers = self._stack.enter_context(Callers(self.place, callers=2, max_tokens=8, streams=True, pause_s=1.0))
            release = self._candidate()
            if release is not None and release.state is State.AWAITING_APPROVAL:
                self._approve(release)
            self._look_for_failures()

    def _approve(self, release: Release) -> None:
        headers = {"Authorization": f"Bearer {self._approver.get_secret_value()}"}
        body = {"evidence_digest": release.evidence_digest}
        httpx.post(f"{self.place.url}/admin/releases/{release.id}/approve", json=body, headers=headers, timeout=30)

    def _look_for_failures(self) -> None:
        for run in self._runs("retrain", "promote"):
            if run["state_type"] == "FAILED" and run["id"] not in self._noticed:
                self._noticed.add(run["id"])
                self.failures.append(f"{run['flow_name']} failed: {run['state']['message']}"[:400])
                print(f"          FAILED and begun again by hand: {self.failures[-1]}", flush=True)
                if run["flow_name"] == "retrain":
                    self.system.ask_for("retrain/weekly")
                else:
                    self.system.ask_for("promote/on-approval", release_id=CANDIDATE, actor="operator")

    def _runs(self, *flows: str) -> list[dict[str, Any]]:
        found = [run | {"flow_name": flow} for flow in flows for run in self.system.prefect.runs(flow)]
        return [run for run in found if moment(run["created"]).timestamp() >= self.began - 1]

    # Where it stands.

    def _candidate(self) -> Release | None:
        return next((release for release in self.place.registry.releases() if release.id == CANDIDATE), None)

    def finished(self) -> frozenset[str]:
        """Stages whose record is there."""
        base = {"base"} if list((self.place.settings.home / "base").glob("*/record.json")) else set()
        return frozenset(base | set(digests(self.place.settings.home)))

    def stage(self) -> str:
        """What goes on."""
        try:
            release = self._candidate()
            ready = any(slot.release_id == CANDIDATE and slot.state is SlotState.READY for slot in self.place.registry.slots())
        except RegistryError:
            return "?"
        if release is None:
            return next((stage for stage in _STAGES.values() if stage not in self.finished()), "register")
        if release.state is State.CANDIDATE:
            return "judge" if ready else "start"
        return {State.AWAITING_APPROVAL: "approve", State.APPROVED: "promote"}.get(release.state, str(release.state))

    def is_live(self) -> bool:
        """Whether the candidate is in production."""
        try:
            release = self._candidate()
        except RegistryError:
            return False
        live = release is not None and release.state is State.LIVE
        self._ended = self._ended or (time.time() if live else 0.0)
        return live

    def is_whole(self) -> bool:
        """Whether everything answers and the work goes on."""
        return self.why() == "nothing is wrong"

    def why(self) -> str:
        """What is not as it should be."""
        try:
            if not answers(self.system.prefect.url):
                return "Prefect does not answer"
            release = self._candidate()
            if self.callers is not None and not self._champion_answers():
                return "the champion does not answer"
            waits = release is not None and release.state in (State.LIVE, State.AWAITING_APPROVAL)
            if not waits and not self.place.registry.runs.under_way():
                known = [f"{run['flow_name']} {run['state']['name']}" for run in self._runs("retrain", "promote")]
                return f"nobody is at work; Prefect has {', '.join(known)}"
        except _UNREACHED as error:
            return f"{type(error).__name__}: {error}"[:200]
        return "nothing is wrong"

    def _champion_answers(self) -> bool:
        champion = self.place.registry.champion("clinic")
        if champion is None:
            return False
        said = {"model": "clinic", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        headers = {"Authorization": f"Bearer {self.place.key.get_secret_value()}"}
        answer = httpx.post(f"{self.place.url}/v1/chat/completions", json=said, headers=headers, timeout=30)
        return answer.status_code == 200 and answer.headers["x-tunegate-release"] == champion.id

    # What it has left behind.

    def account(self) -> Account:
        """Once it is live and whole."""
        registry, home = self.place.registry, self.place.settings.home
        lines = registry.approvals.lines()
        faults = [*registry.approvals.verify([]).faults, *registry.verify().faults, *self.failures]
        told = {body["id"]: f"{body['event']} {body['release']}" for body in self.sink.bodies}
        came = Counter[str]()
        for (what, _), count in (self.callers.seen if self.callers else Counter[tuple[str, str]]()).items():
            came[what] += count
        return Account(
            records={**digests(home), "answers": _answers_digest(home)},
            steps=tuple(
                f"{release.id} {step.from_state} → {step.to_state}"
                for release in registry.releases()
                for step in registry.history(release.id)
            ),
            audit=Counter(f"{line.kind} {line.subject}" for line in lines if not line.kind.startswith("run.")),
            notices=Counter(each for each in told.values() if "failed" not in each),
            told_again=len(self.sink.bodies) - len(told),
            faults=tuple(faults),
            came=came,
        )

    def skipped_s(self, at: float, finished: frozenset[str]) -> float | None:
        """What the first training that began after `at` took for the stages that were finished by then."""
        run = next((run for run in self._runs("retrain") if run["start_time"] and moment(run["start_time"]).timestamp() > at), None)
        if run is None or not finished:
            return None
        tasks = self.system.prefect.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        mine = [task for task in tasks if _STAGES.get(task["name"].rsplit("-", 1)[0]) in finished and task["state_type"] == "COMPLETED"]
        return sum(float(task["total_run_time"]) for task in mine) if mine else None


def _answers_digest(home: Path) -> str:
    """Of what both models answered; latencies are never the same twice."""
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((home / "scorecards").glob("*/record.json"))]
    answers = [[answer["prompt_id"], answer["answer"]] for card in cards for answer in card["answers"]]
    return digest_of({"answers": sorted(answers)})
