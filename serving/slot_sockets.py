"""Where the processes of one engine meet: a folder for their sockets that ends with the engine, because vLLM leaves a file at each start.

A Unix socket's path has at most 107 bytes, 37 of them vLLM's, so the folder is a short one among the system's temporary files; a link in
the slot's folder says which, for the case that the server is killed. Next: `slots.py`, which makes and removes it.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

LINK = "sockets"
_PREFIX = "tunegate-"
_MOST_BYTES = 107 - 37
_RANDOM = 8


def make_sockets(slot_folder: Path) -> Path:
    """A new folder for this user alone; one that was left behind goes."""
    remove_sockets(slot_folder)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_short_enough(tempfile.gettempdir())))
    (slot_folder / LINK).symlink_to(folder)
    return folder


def remove_sockets(slot_folder: Path) -> None:
    """Remove the slot's folder of sockets, if it has one."""
    link = slot_folder / LINK
    try:
        folder = link.readlink()
    except FileNotFoundError:
        return
    link.unlink(missing_ok=True)
    if _is_ours(folder):
        shutil.rmtree(folder, ignore_errors=True)


def sweep_sockets(slots: Path) -> None:
    """Remove what a server that was killed has left, below a folder of slots."""
    for link in slots.glob(f"*/{LINK}"):
        with suppress(OSError):  # it can wait for the next start
            remove_sockets(link.parent)


def _short_enough(temporary: str) -> str:
    return temporary if len(os.fsencode(temporary)) + 1 + len(_PREFIX) + _RANDOM <= _MOST_BYTES else "/tmp"  # noqa: S108  # mkdtemp makes it private


def _is_ours(folder: Path) -> bool:
    """Whatever the link says, nothing else is removed."""
    try:
        return folder.name.startswith(_PREFIX) and not folder.is_symlink() and folder.is_dir() and folder.stat().st_uid == os.getuid()
    except FileNotFoundError:
        return False
