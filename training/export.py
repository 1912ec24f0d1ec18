"""A finished model in the form that another tool reads: its adapter, its safetensors, GGUF, or FP8.

Each export is a new folder, there whole or not at all, made a tensor at a time. What no kept library makes here is refused by name and
never imitated. Knows nothing of releases; only FP8 needs torch. Next: `export_gguf.py`, `export_fp8.py`.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from training.atomic import new_folder, require_space
from training.errors import InputError, TunegateError
from training.records import digest_files

Form = Literal["adapter", "safetensors", "gguf", "gguf-q8_0", "fp8", "awq", "gptq"]
FORMS: tuple[Form, ...] = get_args(Form)
_COMPRESSED: tuple[Form, ...] = ("awq", "gptq")
_COMPRESSOR = "llmcompressor"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")  # as peft names them
_FOR_ADAPTERS = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def require_form(form: str) -> Form:
    """Raises: InputError for a form that is not known, or that nothing installed here makes."""
    if form in _COMPRESSED:
        raise InputError(
            f"{form} cannot be made here: it needs the package {_COMPRESSOR}",
            why=f"{_COMPRESSOR} asks for an older transformers than training and serving run on, and the others for another numpy",
            do=f"export safetensors, and run {_COMPRESSOR} on that folder in an environment of its own",
        )
    for known in FORMS:
        if form == known:
            return known
    raise InputError(f"there is no export called {form!r}", do=f"choose from: {', '.join(FORMS)}")


def export_model(model: Path, form: Form, out: Path, adapter: Path | None = None) -> Path:
    """Write the model in the folder `model`, or its adapter, to the new folder `out`, and return that.

    Raises:
        InputError: `out` is there already, there is no such adapter, or the model is of a kind that the form does not know.
    """
    if out.exists():
        raise InputError(f"{out} is there already", why="an export overwrites nothing", do="name another folder with --out, or delete it")
    require_space(out.parent, sum(path.stat().st_size for path in model.rglob("*") if path.is_file()))
    with new_folder(out) as partial:
        _WRITERS[require_form(form)](model, partial, adapter)
    return out


def _safetensors(model: Path, out: Path, adapter: Path | None) -> None:
    """The record and the signature go along, so that whoever gets the folder can check it."""
    shutil.copytree(model, out, dirs_exist_ok=True)
    if digest_files(model) != digest_files(out):
        raise TunegateError(f"the copy of {model} has other bytes", why="a disk that loses bytes", do="export to another disk")


def _adapter(model: Path, out: Path, adapter: Path | None) -> None:
    if adapter is None or not all((adapter / name).is_file() for name in _ADAPTER_FILES):
        raise InputError(
            "this model has no adapter of its own: it is a base model, or was trained by a method without one",
            do="export safetensors",
        )
    for name in _ADAPTER_FILES:
        shutil.copyfile(adapter / name, out / name)
    for name in _FOR_ADAPTERS:
        if (model / name).is_file():
            shutil.copyfile(model / name, out / name)


def _gguf(model: Path, out: Path, adapter: Path | None) -> None:
    from training.export_gguf import write_gguf

    write_gguf(model, out / "model.gguf")


def _gguf_q8_0(model: Path, out: Path, adapter: Path | None) -> None:
    from training.export_gguf import Q8_0, write_gguf

    write_gguf(model, out / "model.gguf", Q8_0)


def _fp8(model: Path, out: Path, adapter: Path | None) -> None:
    from training.export_fp8 import write_fp8

    write_fp8(model, out)


_WRITERS: dict[Form, Callable[[Path, Path, Path | None], None]] = {
    "safetensors": _safetensors,
    "adapter": _adapter,
    "gguf": _gguf,
    "gguf-q8_0": _gguf_q8_0,
    "fp8": _fp8,
}
