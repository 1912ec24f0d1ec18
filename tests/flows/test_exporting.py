"""What is exported of a release is what was judged."""

from pathlib import Path

import pytest

from flows.exporting import export_release
from serving.registry import Registry
from serving.settings import Settings
from tests.fakes_keys import write_key_pair
from tests.fakes_serving import candidate, url_in, write_model
from training.errors import InputError, RecordError, SignatureError
from training.signing import sign_model, verify_signature


def test_an_exported_release_can_be_checked_where_it_arrives(tmp_path: Path) -> None:
    private, public = write_key_pair(tmp_path)
    with Registry(url_in(tmp_path)) as registry:
        release = candidate(registry, digest=write_model(tmp_path / "m"), folder=tmp_path / "m")
    settings = Settings(home=tmp_path / "home", verify_key=public)
    with pytest.raises(SignatureError, match="it has no signature"):
        export_release(settings, release, "safetensors", tmp_path / "out")
    sign_model(release.model_dir, private)

    verify_signature(export_release(settings, release, "safetensors", tmp_path / "out"), public)


def test_an_altered_release_is_not_exported(tmp_path: Path) -> None:
    with Registry(url_in(tmp_path)) as registry:
        release = candidate(registry, digest=write_model(tmp_path / "m"), folder=tmp_path / "m")
    (tmp_path / "m" / "extra.py").write_text("import os")

    with pytest.raises(RecordError, match="does not belong here"):
        export_release(Settings(home=tmp_path / "home"), release, "safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_model_as_release_has_no_adapter(tmp_path: Path) -> None:
    with Registry(url_in(tmp_path)) as registry:
        release = candidate(registry, digest=write_model(tmp_path / "m"), folder=tmp_path / "m")

    with pytest.raises(InputError, match="no adapter of its own"):
        export_release(Settings(home=tmp_path / "home"), release, "adapter", tmp_path / "out")
