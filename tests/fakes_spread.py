"""What two processes that train together run in the tests: both stages on a tiny line, whole and shared out, from sections given as JSON.

Both stages are made once more by processes that are killed in their last step, and by others that go on.

fakes_spread.py LINE OUT SFT PREFERENCE

The libraries are imported once, and each process is a fork with the environment that a launcher would have given it.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from serving.slots import free_port
from tests.fakes_spread_losses import write_losses
from tests.fakes_training import TinyLine, sft_section
from training.adapters import new_adapter
from training.builders import rounding
from training.config import QuantizationSection
from training.preference import train_preference
from training.preference_section import PreferenceSection
from training.progress import Progress, Report, silent
from training.ranks import join, leave
from training.records import RECORD_NAME, AdapterArtifact
from training.sft import train_sft

PROCESSES = 2
Work = Callable[..., None]


def main(*asked: str) -> int:
    """Start the processes, again and again; 0 when all of them ended well, or were killed where they should be."""
    return max(_ended_well(asked, train), *(_ended_well(asked, partial(train_until, kill), kill) for kill in ("sft", "dpo", "")))


def _ended_well(asked: Sequence[str], work: Work, kill: str = "") -> int:
    port = str(free_port())
    children = [pid for rank in range(PROCESSES) if (pid := _fork(rank, port, asked, work))]
    first = os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])
    for other in children[1:] if kill else ():
        os.kill(other, signal.SIGKILL)  # as torch's launcher does with those that are left
    others = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children[1:]]
    return int(first != -signal.SIGKILL) if kill else int(any((first, *others)))


def _fork(rank: int, port: str, asked: Sequence[str], work: Work) -> int:
    if pid := os.fork():
        return pid
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    os.environ |= dict(zip(names, map(str, (rank, rank, PROCESSES, PROCESSES)), strict=True))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    status = 1
    try:
        work(Path(asked[0]), Path(asked[1]), *asked[2:])
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it ends here, and not in the parent's code
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def train(line: Path, out: Path, sft: str, preference: str) -> None:
    """Train, and after that tune, in folders named after the stage."""
    tiny, section, adapter = TinyLine.of(line), sft_section(**json.loads(sft)), out / "sft-two"
    pairs = PreferenceSection.model_validate_json(preference)
    trained = train_sft(tiny.model, section, tiny.base, tiny.dataset_dir, tiny.dataset, adapter, silent)
    train_preference(tiny.model, section, pairs, tiny.base, tiny.dataset_dir, tiny.dataset, adapter, trained, out / "dpo-two", silent)
    rows = (tiny.dataset_dir, tiny.dataset)
    train_sft(tiny.model, section, tiny.base, *rows, out / "sft-shared", silent, shard=True)
    train_preference(tiny.model, section, pairs, tiny.base, *rows, adapter, trained, out / "dpo-shared", silent, shard=True)
    write_losses(tiny, adapter, out / "losses-two.safetensors")
    told = rounded_and_shared_out(Path(tiny.base.folder))
    if join().first:
        (out / "rounded.json").write_text(json.dumps(told), encoding="utf-8")
    leave()


def train_until(kill: str, line: Path, out: Path, sft: str, preference: str) -> None:
    """Train, and after that tune, going on from what is there; the first process is killed in the last step of the stage `kill`."""
    tiny, section, adapter = TinyLine.of(line), sft_section(**json.loads(sft)), out / "sft-killed"
    pairs, rows = PreferenceSection.model_validate_json(preference), (tiny.dataset_dir, tiny.dataset)
    if (adapter / RECORD_NAME).exists():
        trained = AdapterArtifact.read(adapter)
    else:
        trained = train_sft(tiny.model, section, tiny.base, *rows, adapter, killer(kill == "sft"))
    train_preference(tiny.model, section, pairs, tiny.base, *rows, adapter, trained, out / "dpo-killed", killer(kill == "dpo"))
    leave()


def killer(deadly: bool) -> Report:
    """Hears of steps; a deadly one ends its process in the last of them, behind the checkpoint of the one before."""

    def report(progress: Progress) -> None:
        if deadly and progress.unit == "steps" and 1 < progress.total == progress.done:
            os.kill(os.getpid(), signal.SIGKILL)

    return report


def rounded_and_shared_out(folder: Path) -> dict[str, float]:
    """Loss, length of gradient and bytes of blocks held here, with weights in bitsandbytes' 4-bit layout, whole and shared out."""
    found = {}
    for shard in (False, True):
        asked = {"quantization_config": rounding(QuantizationSection(), shard=True), "device_map": {"": "cpu"}}
        torch.manual_seed(1)
        base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **asked).requires_grad_(False)
        adapted = new_adapter(base, sft_section(dropout=0.0), shard=shard).train()
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                parameter.add_(0.01) if "lora_B" in name else None
        ids = torch.arange(40).reshape(2, 20)
        loss = adapted(input_ids=ids, labels=ids).loss
        loss.backward()
        gradients = [each.grad.float().square().sum() for each in adapted.parameters() if each.grad is not None]
        kind = "shared" if shard else "whole"
        found |= {f"{kind} loss": float(loss), f"{kind} gradient": float(sum(gradients)) ** 0.5, f"{kind} bytes": _bytes_of_blocks(base)}
    return found


def _bytes_of_blocks(base: Any) -> int:
    rounded = [layer.weight for layer in base.modules() if isinstance(layer, Linear4bit)]
    here = [each.to_local() if isinstance(each, DTensor) else each for each in rounded]
    return sum(each.numel() * each.element_size() for each in here)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
