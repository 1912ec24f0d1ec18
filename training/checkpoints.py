"""Checkpoints that are whole or not there, and the newest whole one to go on from.

The trainer writes into a staging folder; a checkpoint counts only after its files are flushed, its manifest of sha256
sums is written and it is renamed into place. A checkpoint names the inputs of its run, so one of another recipe is never
resumed. Optimizer and random states are pickles: they stay in here and never reach an artefact. Next: `watch.py`.
"""

import json
import os
import shutil
from pathlib import Path

from training.atomic import require_space, sync_tree, write_text
from training.records import FileDigest, digest_files

MANIFEST = "manifest.json"
KEPT = 2
_STEP = "step-"


class CheckpointFolder:
    """The checkpoints of one stage below `root`; `inputs` is the digest of all that the run depends on."""

    def __init__(self, root: Path, inputs: str) -> None:
        self.root, self.inputs = root, inputs
        self.staging = root / "staging"
        self.damaged: list[str] = []  # checkpoints of this run that were passed over

    def open(self) -> None:
        """Make the folders, and drop what a killed run was still writing."""
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)

    def seal(self, step: int) -> Path:
        """Make the trainer's checkpoint of `step` count; keeps the newest two."""
        written = self.staging / f"checkpoint-{step}"
        sync_tree(written)
        files = [file.model_dump() for file in digest_files(written)]
        write_text(written / MANIFEST, json.dumps({"inputs": self.inputs, "step": step, "files": files}, indent=1) + "\n")
        final = self.root / f"{_STEP}{step:08d}"
        shutil.rmtree(final, ignore_errors=True)
        os.replace(written, final)
        for old in self._all()[:-KEPT]:
            shutil.rmtree(old)
        return final

    def newest_valid(self) -> Path | None:
        """The newest checkpoint of these inputs whose every byte is as it was written; those before it go on the list of the damaged."""
        self.damaged.clear()
        for folder in reversed(self._all()):
            inputs, whole = self._look_at(folder)
            if whole and inputs == self.inputs:
                return folder
            if not whole and inputs in (self.inputs, None):
                self.damaged.append(folder.name)
        return None

    def require_space(self, checkpoint_bytes: int) -> None:
        """Refuse to start when three checkpoints (two kept, one being written) do not fit.

        Raises:
            TunegateError: too little space.
        """
        require_space(self.root, (KEPT + 1) * checkpoint_bytes)

    def remove(self) -> None:
        """Delete them all: the artefact is written."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _all(self) -> list[Path]:
        return sorted(folder for folder in self.root.glob(f"{_STEP}*") if folder.is_dir())

    def _look_at(self, folder: Path) -> tuple[str | None, bool]:
        """The inputs that a checkpoint names, None where it cannot say, and whether it is whole."""
        try:
            body = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            expected = tuple(FileDigest.model_validate(file) for file in body["files"])
            found = tuple(file for file in digest_files(folder) if file.path != MANIFEST)
        except (OSError, ValueError, KeyError):
            return None, False
        return str(body.get("inputs")), bool(expected and found == expected)
