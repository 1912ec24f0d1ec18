"""Rows out of a database or a hub dataset; and that a password is nowhere to be seen."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from training.data.read_record import Record
from training.data.rows import Rejected
from training.data.sources import SourceSection, open_source
from training.errors import DataError

ROW = {"instruction": "Hi", "input": "", "output": "Hello"}


def database(tmp_path: Path) -> str:
    path = tmp_path / "clinic.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table chat (frage text, antwort text, seen date, raw blob)")
        connection.executemany("insert into chat values (?, ?, '2026-01-01', ?)", [("a", "b", b"ok"), ("c", "d", b"\xff")])
    connection.close()
    return f"sqlite:///{path}"


def test_a_query_gives_its_rows_and_what_is_no_text_is_rejected(tmp_path: Path) -> None:
    section = SourceSection(
        sql="select frage, antwort, raw from chat", database=database(tmp_path), columns={"question": "frage", "answer": "antwort"}
    )

    first, second = open_source(section)

    assert isinstance(first, Record)
    assert first.values == {"question": "a", "answer": "b", "raw": "ok"}
    assert isinstance(second, Rejected)
    assert (second.place.line, second.reason) == (2, "not_utf8")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select fragen from chat", "no such column: fragen"),
        ("selec 1", "syntax error"),
        ("delete from chat", "no SELECT"),
        ("select 1 as a, 2 as a", "more than one column called a"),
        ("select * from chat where frage = 'z'", "holds no rows"),
        ("select ':x', '%s' where 1 = 2", "holds no rows"),
    ],
)
def test_a_query_that_fails_says_so_in_the_databases_words(tmp_path: Path, sql: str, said: str) -> None:
    address = database(tmp_path)

    with pytest.raises(DataError, match=said):
        list(open_source(SourceSection(sql=sql, database=address)))

    assert len(list(open_source(SourceSection(sql="select frage, antwort from chat", database=address)))) == 2


def test_a_missing_sqlite_file_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        list(open_source(SourceSection(sql="select 1", database=f"sqlite:///{tmp_path}/none.db")))

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "address",
    [
        "nonsense://user:hunter22@host/name",
        "user:hunter22@host",
        "postgresql+nodriver://user:hunter22@host/name",
        "sqlite:///nowhere/x.db?password=hunter22",
        "sqlite:///${CLINIC_PASSWORD}",
        "${CLINIC_ADDRESS}",
    ],
)
def test_a_password_is_never_shown(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINIC_PASSWORD", "hunter22")
    monkeypatch.setenv("CLINIC_ADDRESS", "nonsense://user:hunter22@host/name")
    section = SourceSection(sql="select 1", database=address)

    with pytest.raises(DataError) as caught:
        list(open_source(section))

    shown = [str(caught.value), repr(section), section.label]
    assert not any("hunter22" in text for text in shown)
    assert caught.value.__cause__ is None


def test_a_recorded_section_holds_the_variable_and_not_the_password() -> None:
    named = SourceSection(sql="select 1", database="postgresql://user:${CLINIC_PASSWORD}@host/name?sslmode=require")
    literal = SourceSection(sql="select 1", database="postgresql://user:hun/ter22@host/name?sslmode=require&key=ter22")

    assert SourceSection.model_validate(named.model_dump(exclude_unset=True)) == named
    assert literal.model_dump()["database"] == "postgresql://user:***@host/name?sslmode=require&key=***"
    assert "ter22" not in literal.model_dump_json() + literal.digest + repr(literal)


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(DataError, match="CLINIC_NOTHING"):
        list(open_source(SourceSection(sql="select 1", database="postgresql://u:${CLINIC_NOTHING}@host/name")))


@pytest.mark.slow
def test_a_dataset_is_streamed_and_without_a_hub_the_error_says_so(tmp_path: Path) -> None:
    """The library takes a folder called as the dataset is for the dataset; in its own process, which is told to stay offline."""
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "org" / "name" / "train.jsonl").write_text(f"{json.dumps(ROW)}\n" * 2)
    code = (
        "from training.data.sources import *\n"
        "for row in open_source(SourceSection(dataset='org/name', max_rows=1)): print(row.place, row.values)\n"
        "try: list(open_source(SourceSection(dataset='org/none')))\n"
        "except DataError as error: print(error)\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[3]), "HOME": str(tmp_path), "PATH": ""}

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)

    first, error, *_ = done.stdout.splitlines()
    assert first == f"org/name[train]:1 {ROW}"
    assert error.startswith("org/none[train] cannot be read: ")
