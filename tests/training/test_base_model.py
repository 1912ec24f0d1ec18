import json
import pickle
import shutil
from pathlib import Path

import pytest

from tests.fakes_training import CHAT_TEMPLATE, write_tiny_model
from training.base_model import fetch_base
from training.config import ModelSection
from training.errors import ModelError, RecordError
from training.progress import Progress, silent
from training.records import BaseModelRecord, verify_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "mine")


def test_a_local_folder_is_taken_in_with_its_record_beside_it(folder: Path, tmp_path: Path) -> None:
    record = fetch_base(ModelSection(base=str(folder)), tmp_path / "home", silent)

    assert Path(record.folder) == tmp_path / "home" / "base" / "mine"
    verify_files(Path(record.folder), record.files)
    assert BaseModelRecord.read(Path(record.folder)) == record


def test_fetching_again_gives_the_same_record(folder: Path, tmp_path: Path) -> None:
    first, second = (fetch_base(ModelSection(base=str(folder)), tmp_path / "home", silent) for _ in range(2))

    assert first == second


def test_a_changed_local_folder_is_another_base_model(folder: Path, tmp_path: Path) -> None:
    first = fetch_base(ModelSection(base=str(folder)), tmp_path / "home", silent)
    template = folder / "chat_template.jinja"
    template.unlink()
    template.write_text(CHAT_TEMPLATE + " ")

    second = fetch_base(ModelSection(base=str(folder)), tmp_path / "home", silent)

    assert first.digest != second.digest
    verify_files(Path(second.folder), second.files)


def test_a_cached_model_that_was_altered_is_refused(folder: Path, tmp_path: Path) -> None:
    record = fetch_base(ModelSection(base=str(folder)), tmp_path / "home", silent)
    weights = Path(record.folder) / "model.safetensors"
    body = weights.read_bytes()
    weights.unlink()  # a copy of its own: the cache may be a hard link to the source
    weights.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))

    with pytest.raises(RecordError, match=r"model\.safetensors has other bytes"):
        fetch_base(ModelSection(base=str(folder)), tmp_path / "home", silent)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "extra.pkl", "model.ckpt"])
def test_a_pickle_is_refused_even_beside_safetensors(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).touch()

    with pytest.raises(ModelError, match=f"{name} is a pickle"):
        fetch_base(ModelSection(base=str(folder)), tmp_path / "home", silent)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json"])
def test_a_model_with_its_own_code_needs_the_recipes_word(folder: Path, tmp_path: Path, name: str) -> None:
    add_to(folder / name, {"auto_map": {"AutoModel": "modeling.Own"}})

    with pytest.raises(ModelError, match=rf"{name} has an `auto_map`.*trust_remote_code"):
        fetch_base(ModelSection(base=str(folder)), tmp_path / "home", silent)
    fetch_base(ModelSection(base=str(folder), trust_remote_code=True), tmp_path / "home", silent)


def add_to(path: Path, more: dict[str, object]) -> None:
    had = json.loads(path.read_text()) if path.exists() else {}
    path.unlink(missing_ok=True)
    path.write_text(json.dumps({**had, **more}))


@pytest.mark.parametrize(
    ("index", "fault"),
    [
        ({"weight_map": {"a": "../other/model.safetensors"}}, "which is not in the folder"),
        ({"weight_map": {"a": "/etc/model.safetensors"}}, "which is not in the folder"),
        ({"weight_map": {"a": "model.bin"}}, "which is no safetensors file"),
        ({"weight_map": {"a": "model-2.safetensors"}}, "which is missing"),
        ({"weight_map": {"a": 1}}, "is no index of weights"),
        ([], "is no index of weights"),
    ],
)
def test_an_index_that_leads_out_of_the_folder_or_nowhere_is_refused(folder: Path, tmp_path: Path, index: object, fault: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ModelError, match=rf"model\.safetensors\.index\.json .*{fault}"):
        fetch_base(ModelSection(base=str(folder)), tmp_path / "home", silent)


def test_nothing_that_was_planted_in_a_model_is_run_when_it_is_refused(folder: Path, tmp_path: Path) -> None:
    """Both payloads would write the canary, as reading each of them shows first."""
    canary = tmp_path / "canary"
    payload = pickle.dumps(Planted(canary))
    code = f"import pathlib; pathlib.Path({str(canary)!r}).touch()\n"
    for run in (lambda: pickle.loads(payload), lambda: exec(code)):  # this is what must not happen below
        run()
        assert canary.exists()
        canary.unlink()
    (folder / "pytorch_model.bin").write_bytes(payload)
    (folder / "tokenization_own.py").write_text(code)
    add_to(folder / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}})

    with pytest.raises(ModelError, match=r"pytorch_model\.bin is a pickle.*tokenizer_config\.json has an `auto_map`"):
        fetch_base(ModelSection(base=str(folder)), tmp_path / "home", silent)
    assert not canary.exists()


class Planted:
    """Touches a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.canary,)


def test_all_that_a_folder_lacks_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(
        ModelError, match=r"config\.json is missing; tokenizer_config\.json is missing; there are no \*\.safetensors weights"
    ):
        fetch_base(ModelSection(base=str(tmp_path / "empty")), tmp_path / "home", silent)


def test_a_path_that_is_not_there_is_refused_without_asking_a_hub(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        fetch_base(ModelSection(base=str(tmp_path / "gone" / "model")), tmp_path / "home", silent)


def test_two_models_of_one_name_do_not_replace_each_other(folder: Path, tmp_path: Path) -> None:
    fetch_base(ModelSection(base=str(folder)), tmp_path / "home", silent)
    namesake = tmp_path / "other" / "mine"
    shutil.copytree(folder, namesake)

    with pytest.raises(RecordError, match=r"holds .*mine, not .*other"):
        fetch_base(ModelSection(base=str(namesake)), tmp_path / "home", silent)


@pytest.mark.slow
def test_the_embedded_model_is_converted_once_and_has_a_template(embedded: BaseModelRecord) -> None:
    home = Path(embedded.folder).parents[1]
    heard: list[Progress] = []

    again = fetch_base(ModelSection(base="embedded:smollm2-135m-instruct"), home, heard.append)

    assert again == embedded
    assert heard == []
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json"} <= {file.path for file in again.files}
    assert "quantization_config" not in json.loads((Path(again.folder) / "config.json").read_text())
