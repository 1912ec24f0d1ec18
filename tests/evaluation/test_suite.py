import json
from pathlib import Path

import pytest

from evaluation.errors import SuiteError
from evaluation.suite import Message, load_suite
from tests.fakes_suites import PROMPT, RULES, write_suite


def problems(folder: Path) -> str:
    with pytest.raises(SuiteError) as caught:
        load_suite(folder)
    return "\n".join(caught.value.problems)


def test_a_suite_loads_and_puts_the_system_prompt_first(tmp_path: Path) -> None:
    suite = load_suite(write_suite(tmp_path))
    assert suite.prompts[0].messages == (Message(role="system", content="Be careful."), Message(role="user", content="Prompt 0?"))


def test_a_prompt_with_its_own_system_message_keeps_it(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "Hi"}]
    line = {key: value for key, value in PROMPT.items() if key != "prompt"} | {"messages": messages}
    suite = load_suite(write_suite(tmp_path, prompts=[line]))
    assert [message.content for message in suite.prompts[0].messages] == ["Mine.", "Hi"]


def test_the_digest_changes_with_every_thing_that_can_change_a_score(tmp_path: Path) -> None:
    first = load_suite(write_suite(tmp_path / "a")).digest
    same = load_suite(write_suite(tmp_path / "b")).digest
    others = {
        load_suite(write_suite(tmp_path / "c", prompts=[PROMPT | {"reference": "another"}, PROMPT | {"id": "q"}])).digest,
        load_suite(write_suite(tmp_path / "d", rules=RULES.replace("call 911", "dial 911"))).digest,
        load_suite(write_suite(tmp_path / "e", max_tokens=7)).digest,
    }
    assert same == first
    assert len(others | {first}) == 4


def test_all_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    write_suite(
        tmp_path,
        prompts=[PROMPT, PROMPT | {"prompt": "again"}, {"id": "x", "topic": "pain", "prompt": "?"}],
        rules=RULES.replace("[pain]", "[pian]"),
    )
    found = problems(tmp_path)
    assert "prompts.jsonl:2: prompt p0 is there twice; the first is in line 1" in found
    assert "prompts.jsonl:3: prompt x reference: is missing; without one" in found
    assert "no prompt has the topic 'pian'; did you mean 'pain'?" in found


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (PROMPT | {"refrence": "x"}, "unknown key; did you mean 'reference'?"),
        (PROMPT | {"reference": "  "}, "reference: is blank"),
        (PROMPT | {"messages": [{"role": "user", "content": "x"}]}, "give either prompt or messages"),
        ({"id": "x", "topic": "pain", "reference": "r"}, "give either prompt or messages"),
        (
            {
                "id": "x",
                "topic": "pain",
                "reference": "r",
                "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            },
            "must come from the user",
        ),
        (
            {
                "id": "x",
                "topic": "pain",
                "reference": "r",
                "messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
            },
            "must take turns",
        ),
        ({"id": "x", "topic": "pain", "reference": "r", "messages": [{"role": "robot", "content": "a"}]}, "messages.0.role"),
    ],
)
def test_a_bad_prompt_is_named(line: dict[str, object], what: str, tmp_path: Path) -> None:
    assert what in problems(write_suite(tmp_path, prompts=[line]))


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    assert "suite.yaml: no such file" in problems(tmp_path / "nowhere")
    write_suite(tmp_path, prompts=[])
    (tmp_path / "rules.yaml").unlink()
    found = problems(tmp_path)
    assert "prompts.jsonl:1: no prompts" in found
    assert "rules.yaml: no such file" in found


def test_a_line_that_is_not_json_is_named_by_its_number(tmp_path: Path) -> None:
    write_suite(tmp_path)
    with (tmp_path / "prompts.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n{oops\n" + json.dumps(["list"]) + "\n")
    found = problems(tmp_path)
    assert "prompts.jsonl:4: not JSON" in found
    assert "prompts.jsonl:5: a JSON object is expected, this is a list" in found


def test_a_suite_that_borrows_rules_may_leave_topics_out(tmp_path: Path) -> None:
    write_suite(tmp_path / "suite")
    folder = write_suite(tmp_path / "validation", prompts=[PROMPT | {"topic": "colds"}], rules_path="../suite/rules.yaml")
    assert load_suite(folder).rules == load_suite(tmp_path / "suite").rules
