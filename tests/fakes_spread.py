"""What one of several processes runs in the tests of spread training: both stages on a tiny line, from sections given as JSON.

fakes_spread.py LINE OUT SFT [PREFERENCE]
"""

import json
import sys
from pathlib import Path

from tests.fakes_training import TinyLine, sft_section
from training.environment import die_with_parent
from training.preference import train_preference
from training.preference_section import PreferenceSection
from training.progress import silent
from training.ranks import leave
from training.sft import train_sft


def main(line: Path, out: Path, sft: str, preference: str = "") -> None:
    """Train, and after that tune, in folders named after the stage."""
    die_with_parent()
    tiny, section, adapter = TinyLine.of(line), sft_section(**json.loads(sft)), out / "sft-two"
    trained = train_sft(tiny.model, section, tiny.base, tiny.dataset_dir, tiny.dataset, adapter, silent)
    if preference:
        pairs = PreferenceSection.model_validate_json(preference)
        train_preference(tiny.model, section, pairs, tiny.base, tiny.dataset_dir, tiny.dataset, adapter, trained, out / "dpo-two", silent)
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
