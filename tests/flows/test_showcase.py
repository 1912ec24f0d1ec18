"""The questions that are shown, the answers side by side, and what a model cannot do to a terminal."""

from pathlib import Path

import pytest

from evaluation.rules import RuleResult
from evaluation.suite import Suite, load_suite
from flows.asking import ask_once, temporary_key
from flows.display import make_console, plain
from flows.errors import ServingFailed
from flows.showcase import ShownAnswer, questions, side_by_side
from serving.records import ServerInfo
from serving.registry import Registry, utc_now
from serving.settings import Settings
from serving.slots import free_port
from tests.fakes_flows import SAFE, printed, quiet_console
from tests.fakes_suites import PROMPT, RULES, write_suite

TOPICS = ("sleep", "pain", "pain", "stroke", "colds", "stroke")


def suite(tmp_path: Path, topics: tuple[str, ...] = TOPICS, watched: str = "pain, stroke") -> Suite:
    prompts = [PROMPT | {"id": f"p{number}", "topic": topic} for number, topic in enumerate(topics)]
    return load_suite(write_suite(tmp_path, prompts=prompts, rules=RULES.replace("[pain]", f"[{watched}]")))


def test_the_first_prompt_of_each_watched_topic_is_asked_in_the_suites_order(tmp_path: Path) -> None:
    assert [prompt.id for prompt in questions(suite(tmp_path))] == ["p1", "p3"]
    assert [prompt.id for prompt in questions(suite(tmp_path), 1)] == ["p1"]


def test_a_suite_without_critical_rules_shows_a_prompt_of_each_topic(tmp_path: Path) -> None:
    folder = write_suite(tmp_path, prompts=[PROMPT | {"id": each, "topic": each} for each in "abcd"], rules=minor())
    assert [prompt.id for prompt in questions(load_suite(folder))] == ["a", "b", "c"]


def minor() -> str:
    return RULES.replace("critical", "minor").replace("[pain]", "[a]")


EVIL = "[bold]not bold[/] [link=http://x]y[/] :pill: \x1b]0;title\x07\x1b[2Jcleared \x9b31m [/red]"


def broken() -> RuleResult:
    return RuleResult(rule_id="pain-call", severity="critical", passed=False, reason="by hand")


def test_answers_stand_side_by_side_with_the_rules_they_broke(tmp_path: Path) -> None:
    console, prompts = quiet_console(), questions(suite(tmp_path), 1)
    side_by_side(console, prompts, [ShownAnswer("clinic-1", "Wait.", (broken(),))], [ShownAnswer("clinic-2", SAFE, ())])
    shown = printed(console)
    expected = ("clinic-1, before", "clinic-2, now", "Wait.", SAFE, "✗ pain-call (critical)", "✓ keeps every rule")
    assert [each for each in expected if each not in shown] == []
    assert shown.index("✗ pain-call") < shown.index("✓ keeps every rule")


def test_a_models_text_can_neither_style_nor_steer_the_terminal(tmp_path: Path) -> None:
    console, prompts = quiet_console(), questions(suite(tmp_path), 1)
    side_by_side(console, prompts, [ShownAnswer("clinic-1", EVIL, ())], [ShownAnswer("clinic-2", SAFE, ())])
    shown = printed(console)
    assert not any(char in shown for char in "\x1b\x07\x9b")
    assert "[bold]not bold[/]" in shown


@pytest.mark.parametrize("text", ["[red]x[/]", "[/nothing]", "[[", ":pill: :warning:", "two\n\tlines", "急 ✓", "\\[x]"])
def test_plain_text_is_printed_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print(plain(text), highlight=False)
    assert capsys.readouterr().out.rstrip("\n").expandtabs() == text.expandtabs()


def alive(settings: Settings, registry: Registry) -> None:
    """A server that beat a moment ago and does not answer."""
    now = utc_now()
    registry.beat(ServerInfo(boot_id="b", hostname="h", pid=1, host="127.0.0.1", port=settings.port, started_at=now, beat_at=now))


def test_asking_without_a_server_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ServingFailed, match="no server runs") as caught:
        ask_once(Settings(home=tmp_path), "clinic", "Hello?", None)
    assert caught.value.do == "tunegate serve"


def test_a_server_that_was_just_killed_is_an_error_and_the_key_is_revoked(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, port=free_port())
    with Registry(settings.database_url) as registry:
        alive(settings, registry)
        with pytest.raises(ServingFailed, match="does not know a key"), temporary_key(registry, known_within_s=0.2):
            pass
        (key,) = registry.keys()
        assert key.revoked_at is not None
