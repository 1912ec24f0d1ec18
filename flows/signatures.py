"""Signs the models of releases with the key that the settings name. Next: `training/signing.py`."""

from pathlib import Path

from serving.artefact import verify_artefact
from serving.errors import SettingsError
from serving.records import Release
from serving.settings import Settings
from training.records import SIGNATURE_NAME
from training.signing import sign_model


def sign_if_asked(settings: Settings, folder: Path) -> None:
    """Sign a model that is about to become a release, where a key is set and nobody has signed it yet."""
    if settings.signing_key is not None and not (folder / SIGNATURE_NAME).is_file():
        sign_model(folder, settings.signing_key, settings.signing_key_password.get_secret_value())


def sign_release(settings: Settings, release: Release) -> Path:
    """Sign the model of a release that was made before there was a key, or with another one.

    Raises:
        SettingsError: no key is set.
        RecordError: the files are not those that were judged; nothing is signed.
    """
    if settings.signing_key is None:
        raise SettingsError("TUNEGATE_SIGNING_KEY is not set", why="there is no key to sign with", do="name a private key's PEM file in it")
    verify_artefact(release)
    return sign_model(release.model_dir, settings.signing_key, settings.signing_key_password.get_secret_value())
