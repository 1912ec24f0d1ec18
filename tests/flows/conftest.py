"""One real server for all tests of this folder; each test has a public name of its own there."""

from collections.abc import Iterator

import pytest

from tests.fakes_flows import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site") / "home")
    with made.serving():
        yield made
    made.registry.close()
