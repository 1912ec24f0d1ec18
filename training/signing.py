"""Signs a model's folder with a key of one's own, and checks the signature: OpenSSF model signing, without any network.

The signature covers every file, the record included, and lies beside them as `model.sig`. Digests say that files are those that were
recorded; whoever can write to the folder can write a new record too, but without the private key no new signature. Keys are PEM files
of an elliptic curve (`openssl ecparam -name prime256v1 -genkey -noout`). Knows nothing of releases. Next: `serving/artefact.py`.
"""

import os
from pathlib import Path
from typing import Any

from training.atomic import sync_folder
from training.errors import InputError, SignatureError
from training.records import SIGNATURE_NAME

_KEY_HELP = "give a PEM file of an elliptic curve: openssl ecparam -name prime256v1 -genkey -noout -out KEY; openssl ec -in KEY -pubout"

_UNUSABLE = (OSError, ValueError, TypeError, AttributeError)  # the last is what the library makes of an RSA key


def sign_model(folder: Path, private_key: Path, password: str = "") -> Path:
    """Sign every file of a model; a signature that is there already is replaced in one step. Returns the signature's path.

    Raises:
        InputError: the key cannot be read.
    """
    from model_signing import signing

    signature = folder / SIGNATURE_NAME
    partial = folder.with_name(f".{folder.name}.{SIGNATURE_NAME}.partial")  # beside it: a file in it would not be the model's
    try:
        # The library hands the password on as it is, and cryptography wants bytes.
        config = signing.Config().use_elliptic_key_signer(private_key=private_key, password=password.encode() if password else None)
    except _UNUSABLE as error:
        raise InputError(f"the signing key {private_key} cannot be used: {_first_line(error)}", do=_KEY_HELP) from error
    config.set_hashing_config(_hashing(signature)).sign(folder, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, signature)
    sync_folder(folder)
    return signature


def verify_signature(folder: Path, public_key: Path) -> None:
    """Check that the files of a model are, one by one, those that the owner of the key signed.

    Raises:
        SignatureError: there is no signature, it is another key's, or a file is missing, extra or altered.
        InputError: the public key cannot be read.
    """
    signature = folder / SIGNATURE_NAME
    if not signature.is_file():
        raise _refused(folder, "it has no signature", "sign it: tunegate sign RELEASE")
    from model_signing import verifying

    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except _UNUSABLE as error:
        raise InputError(f"the public key {public_key} cannot be used: {_first_line(error)}", do=_KEY_HELP) from error
    try:
        config.set_hashing_config(_hashing(signature)).verify(folder, signature)
    except Exception as error:  # the library raises what its parsers raise: a signature is refused whatever is wrong with it
        raise _refused(folder, _first_line(error), "restore the folder, or sign it again if you know why it changed") from error


def _hashing(signature: Path) -> Any:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)


def _refused(folder: Path, what: str, do: str) -> SignatureError:
    return SignatureError(f"the signature of {folder} does not hold: {what}", why="nobody vouches for these weights", do=do)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
