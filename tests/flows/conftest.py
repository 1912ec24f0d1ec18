"""One real server, and one Prefect server, for all tests of this folder that want one, and no longer; each test has its own public name."""

from collections.abc import Iterator

import pytest

from tests.fakes_flows import Site
from tests.fakes_prefect import PrefectServer, prefect_server


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site") / "home")
    with made.serving():
        yield made
    made.registry.close()


@pytest.fixture(scope="package")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as made:
        yield made
