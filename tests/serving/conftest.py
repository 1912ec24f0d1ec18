"""The registry over both of its databases; the PostgreSQL server is started once, and only if a test asks for it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes_postgres import Cluster, postgres_cluster
from tests.fakes_serving import url_in


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    with postgres_cluster() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def registry_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A registry of its own, in each database in turn."""
    if request.param == "sqlite":
        return url_in(tmp_path)
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.fresh()


@pytest.fixture
def beside(registry_url: str, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Run SQL on the registry's database past our code."""
    if registry_url.startswith("sqlite"):
        return _in_file(Path(registry_url.removeprefix("sqlite:///")))
    cluster: Cluster = request.getfixturevalue("postgres")
    return lambda statement: cluster.run(registry_url, statement)


def _in_file(path: Path) -> Callable[[str], None]:
    import sqlite3
    from contextlib import closing

    def run(statement: str) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement)

    return run
