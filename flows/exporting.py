"""Exports a release: checks its files as a server would, finds its adapter, and hands both to training. Next: `training/export.py`."""

from pathlib import Path

from serving.artefact import verify_artefact
from serving.records import Release
from serving.settings import Settings
from training.errors import RecordError
from training.export import Form, export_model
from training.records import AdapterArtifact, MergedModel, verify_files


def export_release(settings: Settings, release: Release, form: Form, out: Path) -> Path:
    """Write a release's model, or its adapter, to the new folder `out`.

    Raises:
        RecordError: the files are not those that were judged.
        InputError: the model cannot be had in this form.
    """
    verify_artefact(release, settings.verify_key)
    return export_model(release.model_dir, form, out, _adapter_of(release.model_dir) if form == "adapter" else None)


def _adapter_of(model: Path) -> Path | None:
    """The folder of the adapter that a merged model was folded from; None for a base model.

    Raises:
        RecordError: it is gone, or has other bytes.
    """
    try:
        wanted = MergedModel.read(model).adapter_digest
    except RecordError:
        return None  # the record was read a moment ago: it is a base model's
    for folder in (*model.parent.glob("preference-*"), *model.parent.glob("sft-*")):
        if folder.is_dir() and (record := _adapter_in(folder)) is not None and record.digest == wanted:
            verify_files(folder, record.files)
            return folder
    raise RecordError(
        f"the adapter {wanted[:12]} of {model} is not on this disk", why="it was pruned, or is on another machine", do="export safetensors"
    )


def _adapter_in(folder: Path) -> AdapterArtifact | None:
    try:
        return AdapterArtifact.read(folder)
    except RecordError:
        return None  # not finished, or not readable: it is not the one that was merged
