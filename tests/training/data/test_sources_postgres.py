"""Rows out of a real PostgreSQL: typed, streamed, never changed, and with its own words when it refuses."""

import resource
from collections.abc import Iterator

import pytest

from tests.fakes_postgres import Cluster, postgres_cluster
from training.data.read_record import Record
from training.data.sources import SourceSection, open_source
from training.errors import DataError

COLUMNS = {"question": "frage", "answer": "antwort"}
TABLE = """
create table chat (id int, frage text, antwort text, asked date, tags text[], score numeric(4, 2), extra jsonb);
insert into chat values (1, '发烧怎么办？', 'See a doctor — today.', '2026-01-02', '{fever,zh}', 3.50, '{"a": [1, null]}'),
                        (2, 'Rash?', null, null, null, null, null)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with postgres_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> str:
    address = cluster.empty()
    cluster.run(address, TABLE)
    return address


def test_a_query_gives_text_dates_lists_and_numbers_as_a_row_can_hold_them(database: str) -> None:
    section = SourceSection(sql="select * from chat order by id", database=database, columns=COLUMNS)

    first, second = open_source(section)

    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert first.values == {
        "question": "发烧怎么办？",
        "answer": "See a doctor — today.",
        "id": 1,
        "asked": "2026-01-02",
        "tags": ["fever", "zh"],
        "score": "3.50",
        "extra": {"a": [1, None]},
    }
    assert second.values["answer"] is None


def test_many_rows_are_streamed_and_never_held(database: str) -> None:
    """60,000 rows of 1000 characters are 60 MB; a client that fetches them all holds more than that."""
    sql = "select 'q' || n as question, repeat('x', 1000) as answer from generate_series(1, 60000) as n"
    rows = iter(open_source(SourceSection(sql=sql, database=database)))
    next(rows)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert sum(1 for _ in rows) == 59_999
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 30_000


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("select fragen from chat", 'column "fragen" does not exist'),
        ("selec 1", "syntax error"),
        ("select * from nowhere", 'relation "nowhere" does not exist'),
        ("select 1 / (2 - id) as x from chat order by id", "division by zero"),
        ("select * from chat where id > 9", "holds no rows"),
        ("select 1 as a, 2 as a", "more than one column called a"),
    ],
)
def test_a_query_that_fails_says_so_in_the_servers_words(database: str, sql: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        list(open_source(SourceSection(sql=sql, database=database)))


def test_a_statement_that_changes_something_changes_nothing(database: str) -> None:
    with pytest.raises(DataError):
        list(open_source(SourceSection(sql="delete from chat returning id, frage as question", database=database)))

    assert len(list(open_source(SourceSection(sql="select id from chat", database=database)))) == 2


def test_a_wrong_password_is_refused_and_never_shown(cluster: Cluster) -> None:
    address = cluster.url("postgres").replace(cluster.password, "hunter22")

    with pytest.raises(DataError, match="password authentication failed") as caught:
        list(open_source(SourceSection(sql="select 1", database=address)))

    assert "hunter22" not in str(caught.value)


def test_a_server_that_dies_in_the_middle_is_named_with_the_rows_before(cluster: Cluster) -> None:
    sql = "select n, repeat('x', 2000) as answer from generate_series(1, 100000) as n"
    rows = iter(open_source(SourceSection(sql=sql, database=cluster.url("postgres"))))
    next(rows)

    cluster.stop()
    try:
        with pytest.raises(DataError, match=r"the query failed after [\d,]+ rows"):
            list(rows)
    finally:
        cluster.start()
