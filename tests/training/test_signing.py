"""A model's signature holds for its very files and its very key."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.fakes_keys import write_key_pair
from training.errors import InputError, SignatureError
from training.records import SIGNATURE_NAME, digest_files
from training.signing import sign_model, verify_signature


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "more").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "record.json").write_text("{}")
    (folder / "more" / "chat_template.jinja").write_text("hello")
    return folder


def test_what_was_signed_is_what_is_verified(model: Path, tmp_path: Path) -> None:
    private, public = write_key_pair(tmp_path)
    before = digest_files(model)

    assert sign_model(model, private) == model / SIGNATURE_NAME
    verify_signature(model, public)
    assert digest_files(model) == before
    assert {path.name for path in model.iterdir()} == {"model.safetensors", "record.json", "more", SIGNATURE_NAME}


def flip_a_byte(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"X")


CHANGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("flipped byte", flip_a_byte, r"Hash mismatch for 'model\.safetensors'"),
    ("other record", lambda model: (model / "record.json").write_text("{ }"), r"Hash mismatch for 'record\.json'"),
    ("missing file", lambda model: (model / "more" / "chat_template.jinja").unlink(), "Missing files.*chat_template"),
    ("extra file", lambda model: (model / "more" / "code.py").write_text("1"), r"Extra files.*code\.py"),
    ("extra signature", lambda model: (model / "more" / SIGNATURE_NAME).write_text("1"), r"Extra files.*model\.sig"),
    ("ignored by git", lambda model: (model / ".gitignore").write_text("*"), r"Extra files.*\.gitignore"),
    ("link", lambda model: (model / "link").symlink_to("/etc/hostname"), "link"),
    ("no signature", lambda model: (model / SIGNATURE_NAME).unlink(), "it has no signature"),
    ("torn signature", lambda model: (model / SIGNATURE_NAME).write_text('{"media'), "does not hold"),
    ("empty signature", lambda model: (model / SIGNATURE_NAME).write_text("{}"), "does not hold"),
]


@pytest.mark.parametrize(("change", "says"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_a_folder_that_is_not_what_was_signed_is_refused(model: Path, tmp_path: Path, change: Callable[[Path], object], says: str) -> None:
    private, public = write_key_pair(tmp_path)
    sign_model(model, private)
    change(model)

    with pytest.raises(SignatureError, match=says):
        verify_signature(model, public)


def test_a_signature_by_another_key_is_refused(model: Path, tmp_path: Path) -> None:
    sign_model(model, write_key_pair(tmp_path / "theirs")[0])

    with pytest.raises(SignatureError, match="Key mismatch"):
        verify_signature(model, write_key_pair(tmp_path / "ours")[1])


def test_a_key_behind_a_password_signs_with_it_and_not_without(model: Path, tmp_path: Path) -> None:
    private, public = write_key_pair(tmp_path, password="correct horse")

    sign_model(model, private, "correct horse")
    verify_signature(model, public)
    for wrong in ("", "wrong"):
        with pytest.raises(InputError, match=r"the signing key .*key\.pem cannot be used") as caught:
            sign_model(model, private, wrong)
        assert "correct horse" not in str(caught.value)


def test_signing_again_replaces_the_signature(model: Path, tmp_path: Path) -> None:
    sign_model(model, write_key_pair(tmp_path / "old")[0])
    private, public = write_key_pair(tmp_path / "new")
    (model.parent / f".model.{SIGNATURE_NAME}.partial").write_text("what a killed signer left")

    sign_model(model, private)

    verify_signature(model, public)


@pytest.mark.parametrize("content", [None, "not a key", "rsa"])
def test_a_file_that_is_no_key_of_an_elliptic_curve_is_named(model: Path, tmp_path: Path, content: str | None) -> None:
    key = tmp_path / "odd.pem"
    if content == "rsa":
        made = rsa.generate_private_key(65537, 2048)
        key.write_bytes(made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    elif content is not None:
        key.write_text(content)

    with pytest.raises(InputError, match=r"odd\.pem cannot be used"):
        sign_model(model, key)


def test_a_curve_that_the_standard_does_not_know_is_refused(model: Path, tmp_path: Path) -> None:
    private, _ = write_key_pair(tmp_path, curve=ec.SECP256K1())

    with pytest.raises(InputError, match="secp256k1"):
        sign_model(model, private)
