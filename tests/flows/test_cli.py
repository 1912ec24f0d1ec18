"""The command: its exit codes are those it documents, its JSON is JSON, a secret is printed once, and an error is one clear message."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from flows.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, NOT_PASSED, REFUSED
from serving.records import ServerInfo
from serving.registry import Registry, utc_now
from serving.slots import free_port
from tests.fakes_flows import ROOT, recipe_values, write_recipe
from tests.fakes_serving import EVIDENCE, approved, candidate, champion, url_in

RECIPES = ROOT / "flows" / "recipes"
# For a process of its own to start, on a machine that does other things too.
SLOW_S = 240


@dataclass
class Said:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNEGATE_PORT", str(free_port()))
    return tmp_path / "home"


@pytest.fixture
def registry(home: Path) -> Iterator[Registry]:
    home.mkdir()
    with Registry(url_in(home)) as opened:
        yield opened


@pytest.fixture
def tunegate(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process, as its entry point does."""

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["tunegate", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, said.out, said.err)

    return run


def program(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """Starts the command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("run",),
        ("show",),
        ("approve", "clinic-1"),
        ("status", "--nonsense"),
        ("keys", "nonsense"),
        ("releases", "too", "many"),
        ("keys", "create", "web", "--scope", "root"),
        ("run", "no-such-recipe.yaml"),
        ("plan", "no-such-recipe.yaml"),
        ("validate", "."),
        ("show", "clinic-9"),
        ("keys", "revoke", "key-9"),
    ],
    ids=" ".join,
)
def test_wrong_input_exits_with_2_and_says_what_to_do(tunegate: Run, arguments: tuple[str, ...]) -> None:
    said = tunegate(*arguments)
    assert said.status == BAD_INPUT
    assert said.err.startswith("✗ ")
    assert "what to do: " in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_an_unknown_command_is_named(tunegate: Run) -> None:
    assert "'nonsense'" in tunegate("nonsense").err


def test_a_setting_that_cannot_be_used_is_wrong_input(tunegate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_PORT", "many")
    said = tunegate("status")
    assert said.status == BAD_INPUT
    assert "TUNEGATE_PORT='many'" in said.err


def test_every_fault_of_a_recipe_is_printed_whole_and_nothing_is_started(tunegate: Run, home: Path, tmp_path: Path) -> None:
    values = recipe_values()
    values["sft"]["learning_rat"] = 1
    values["gate"]["min_promts"] = 9
    path = write_recipe(tmp_path / ("long" * 20), values)
    said = tunegate("run", str(path))
    assert said.status == BAD_INPUT
    assert "2 problems in the recipe" in said.err
    assert re.search(re.escape(str(path)) + r":\d+: sft\.learning_rat: unknown key; did you mean 'learning_rate'\?\n", said.err)
    assert not home.exists()


@pytest.mark.parametrize(("arguments"), [(), ("keys",)], ids=["tunegate", "keys"])
def test_the_bare_command_teaches(tunegate: Run, arguments: tuple[str, ...]) -> None:
    said = tunegate(*arguments)
    assert said.status in (DONE, BAD_INPUT)
    assert "Usage" in said.out + said.err
    assert "✗ \n" not in said.err


def test_the_help_names_the_first_command_and_every_exit_code(tunegate: Run) -> None:
    said = tunegate("--help")
    assert said.status == DONE
    words = " ".join(said.out.replace("│", " ").split())
    assert "tunegate run flows/recipes/demo.yaml" in words
    documented = {int(code) for code in re.findall(r"(?:^|[·:] )(\d+) [a-z]", words)}
    assert documented == {DONE, FAILED, BAD_INPUT, NOT_PASSED, REFUSED, INTERRUPTED}


def test_every_command_has_help(tunegate: Run) -> None:
    names = [command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback]
    assert len(names) >= 12
    for name in names:
        said = tunegate(name, "--help")
        assert (said.status, "Usage" in said.out) == (DONE, True)


@pytest.mark.parametrize("command", ["status", "releases"])
def test_an_empty_home_is_no_error(tunegate: Run, command: str) -> None:
    assert tunegate(command).status == DONE


def test_json_output_is_json(tunegate: Run, registry: Registry) -> None:
    champion(registry)
    approved(registry, digest="b" * 64)
    assert tunegate("status", "--json").json["champions"] == {"clinic": "clinic-1"}
    assert [each["id"] for each in tunegate("releases", "--json").json] == ["clinic-1", "clinic-2"]
    assert [step["to_state"] for step in tunegate("show", "clinic-2", "--json").json["history"]][-1] == "approved"


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_planned_as_json(tunegate: Run, recipe: Path) -> None:
    planned = tunegate("plan", str(recipe), "--json")
    assert (planned.status, planned.json["recipe"]) == (DONE, recipe.stem)


@pytest.mark.parametrize("recipe", ["demo", "demo_poisoned"])
def test_the_demo_recipes_are_valid(tunegate: Run, recipe: str) -> None:
    said = tunegate("validate", str(RECIPES / f"{recipe}.yaml"))
    assert said.status == DONE, said.err
    assert "nothing to complain about" in said.out


def test_a_missing_data_file_is_found_by_validate(tunegate: Run, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe")
    (tmp_path / "recipe" / "rows.jsonl").unlink()
    said = tunegate("validate", str(path))
    assert said.status == BAD_INPUT
    assert "rows.jsonl is not there" in said.err


def test_a_secret_is_printed_once_and_never_again(tunegate: Run) -> None:
    created = tunegate("keys", "create", "web", "--scope", "infer", "--scope", "admin")
    key_id, secret = created.out.strip().split("\t")
    assert (created.status, secret.startswith("tg-")) == (DONE, True)
    listed, as_json = tunegate("keys", "list"), tunegate("keys", "list", "--json")
    assert key_id in listed.out
    assert sorted(as_json.json[0]["scopes"]) == ["admin", "infer"]
    revoked = tunegate("keys", "revoke", key_id)
    assert revoked.status == DONE
    everything = listed.out + listed.err + as_json.out + revoked.out + tunegate("keys", "list").out
    assert secret not in everything
    assert secret[3:] not in everything


def test_a_rotated_key_has_a_new_secret_and_the_same_limits(tunegate: Run) -> None:
    limits = ("--days", "90", "--requests-per-minute", "60", "--tokens-per-minute", "9000", "--max-concurrent", "4")
    old_id, old_secret = tunegate("keys", "create", "web", *limits).out.strip().split("\t")
    new_id, secret = tunegate("keys", "rotate", old_id, "--overlap-hours", "1").out.strip().split("\t")
    old, new = tunegate("keys", "list", "--json").json
    assert (old["id"], new["id"], secret != old_secret) == (old_id, new_id, True)
    assert [new[name] for name in ("requests_per_minute", "tokens_per_minute", "max_concurrent")] == [60, 9000, 4]
    assert old["expires_at"] < new["expires_at"]
    assert "9000" in tunegate("keys", "list").out


def test_a_key_opens_for_inference_alone_unless_told_otherwise(tunegate: Run) -> None:
    tunegate("keys", "create", "web")
    assert tunegate("keys", "list", "--json").json[0]["scopes"] == ["infer"]


def test_an_unknown_scope_lists_the_choices(tunegate: Run) -> None:
    assert "choose from infer, admin, approve" in tunegate("keys", "create", "web", "--scope", "root").err


@pytest.mark.parametrize(
    "arguments",
    [
        ("approve", "clinic-2", "--as", "bob", "--digest", "f" * 12),
        ("approve", "clinic-1", "--as", "bob"),
        ("approve", "clinic-3", "--as", "bob"),
        ("reject", "clinic-1", "--as", "bob"),
        ("rollback", "clinic", "--as", "bob"),
        ("rollback", "nobody", "--as", "bob"),
    ],
    ids=" ".join,
)
def test_what_the_registry_refuses_exits_with_4(tunegate: Run, registry: Registry, arguments: tuple[str, ...]) -> None:
    """clinic-1 is live, clinic-2 waits, clinic-3 is a candidate that was not judged."""
    champion(registry)
    registry.submit(candidate(registry, digest="b" * 64).id, EVIDENCE, None, "gate")
    candidate(registry, digest="c" * 64)
    before = registry.snapshot()
    said = tunegate(*arguments)
    assert (said.status, said.out) == (REFUSED, "")
    assert said.err.startswith("✗ ")
    assert registry.snapshot() == before


def test_approving_without_promoting_keeps_the_champion(tunegate: Run, registry: Registry) -> None:
    champion(registry)
    registry.submit(candidate(registry, digest="b" * 64).id, EVIDENCE, None, "gate")
    said = tunegate("approve", "clinic-2", "--as", "Dr. [bold]Ä[/]", "--digest", EVIDENCE[:12], "--comment", "fine", "--no-promote")
    assert said.status == DONE
    assert "clinic-2 approved by Dr. [bold]Ä[/]" in said.out
    assert (registry.release("clinic-2").state, registry.history("clinic-2")[-1].reason) == ("approved", "fine")
    assert registry.release("clinic-1").state == "live"


def test_rejecting_by_hand_gives_the_slot_back(tunegate: Run, registry: Registry) -> None:
    champion(registry)
    release = candidate(registry, digest="b" * 64)
    registry.want_slot(release.id, utc_now().replace(year=2100))
    assert tunegate("reject", "clinic-2", "--as", "bob", "--reason", "no").status == DONE
    assert (registry.release("clinic-2").state, dict(registry.snapshot().leases)) == ("rejected", {})


def test_a_rollback_names_the_new_champion(tunegate: Run, registry: Registry) -> None:
    champion(registry)
    registry.promote(approved(registry, digest="b" * 64).id, EVIDENCE, "bob")
    said = tunegate("rollback", "clinic", "--as", "bob")
    assert (said.status, said.out.strip()) == (DONE, "✓ clinic-1 is live again")


def test_a_torn_registry_fails_with_1_and_one_message(tunegate: Run, home: Path) -> None:
    home.mkdir()
    (home / "registry.db").write_bytes(b"not a database at all" * 100)
    said = tunegate("status")
    assert said.status == FAILED
    assert "Traceback" not in said.err
    assert "what to do" in said.err


def test_asking_and_stopping_without_a_server(tunegate: Run) -> None:
    asked, stopped = tunegate("ask", "clinic", "Hello?"), tunegate("stop")
    assert (asked.status, "no server runs" in asked.err) == (FAILED, True)
    assert (stopped.status, stopped.out.strip()) == (DONE, "no server runs")


def test_the_console_script_exits_as_documented(home: Path) -> None:
    asked = program("show", "clinic-9")
    out, err = asked.communicate(timeout=SLOW_S)
    assert (asked.returncode, out) == (BAD_INPUT, "")
    assert err.startswith("✗ ")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run recipe.yaml", "stopped; the next run goes on from here"),
        ("data check rows.jsonl", "stopped; nothing is reported, and the next check begins at the start"),
        ("ask clinic Hello?", "stopped"),
        ("promote clinic-2 --as run", "stopped"),
        ("", "stopped"),
    ],
)
def test_a_stopped_command_promises_only_what_is_true_of_it(command: str, said: str) -> None:
    assert cli.stopped_in_words(command.split()) == said


@contextmanager
def beating(registry: Registry, port: int) -> Iterator[None]:
    """A server at `port` that lives, as far as the registry knows."""
    now, over = utc_now(), threading.Event()
    info = ServerInfo(boot_id="b", hostname="h", pid=1, host="127.0.0.1", port=port, started_at=now, beat_at=now)

    def beat() -> None:
        registry.beat(info)
        while not over.wait(0.5):
            registry.beat(info)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()


def test_ctrl_c_exits_with_130_one_line_and_no_key_left_behind(registry: Registry, home: Path) -> None:
    """The gateway that is asked never answers, so the command waits until it is interrupted; its server beats all the while."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(SLOW_S)
        with beating(registry, mute.getsockname()[1]):
            asking = program("ask", "clinic", "Hello?")
            try:
                with mute.accept()[0]:
                    asking.send_signal(signal.SIGINT)
                    _, err = asking.communicate(timeout=SLOW_S)
            finally:
                asking.kill()
    assert asking.returncode == INTERRUPTED
    assert "stopped" in err
    assert "Traceback" not in err
    (key,) = registry.keys()
    assert key.revoked_at is not None
