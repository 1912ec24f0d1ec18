"""Every way to learn from preferences, pass by pass, on one process or on several: losses and gradients, without a step.

12 pairs, 10 a step: of the last step's two, two processes of five rows a pass have blank ones for the rest, and one of them nothing else.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.fakes_training import TinyLine, sft_section
from training.adapters import load_adapter
from training.builders import load_base, settle
from training.checkpoints import CheckpointFolder
from training.preference_methods import NEED_A_BATCH, PREFERENCES
from training.preference_section import PreferenceSection
from training.preference_trainers import PairTrainer
from training.prepare import PREFERENCES as ROWS
from training.prepare import read_prepared
from training.progress import silent
from training.ranks import join, summed
from training.tokenizer import load_tokenizer
from training.watch import Watch

PAIRS_A_STEP = 10
SHARED_OUT = [
    *(("dpo", loss) for loss in PREFERENCES["dpo"].losses if loss not in NEED_A_BATCH),
    *(("cpo", loss) for loss in PREFERENCES["cpo"].losses),
    ("orpo", None),
    ("simpo", None),
]


def write_losses(tiny: TinyLine, adapter: Path, path: Path) -> None:
    """Write losses `(passes,)` and the gradient of their sum for each of `SHARED_OUT`, as the optimizer gets them."""
    ranks = join()
    settle(7)
    found = {}
    for method, loss in SHARED_OUT:
        section = PreferenceSection.model_validate({"method": method, "loss": loss, "label_smoothing": None})
        model = load_adapter(load_base(Path(tiny.base.folder), None).float(), adapter, trainable=True).train()
        sft = sft_section(dropout=0.0, batch_size=PAIRS_A_STEP // ranks.world)
        watch = Watch(silent, CheckpointFolder(path.parent / f"none-{ranks.rank}", "inputs"))
        tokenizer, rows = load_tokenizer(Path(tiny.base.folder)), read_prepared(tiny.dataset_dir / ROWS)
        trainer = PairTrainer(model, sft, section, tokenizer, rows, watch, ranks)
        tuned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with torch.no_grad():
            for number, parameter in enumerate(tuned):
                parameter.mul_(1 + 0.3 * (-1) ** number)  # away from the reference, which is a copy
        losses = [trainer.compute_loss(model, batch) for batch in trainer.get_train_dataloader()]
        sum(losses).backward()
        gradient = torch.cat([parameter.grad.flatten() for parameter in tuned])
        name = f"{method} {loss}"
        found[f"{name} losses"] = summed(torch.stack(losses).detach()) / ranks.world
        found[f"{name} gradient"] = summed(gradient) / ranks.world
    if ranks.first:
        save_file(found, path)
