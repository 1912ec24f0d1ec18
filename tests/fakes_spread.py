"""What two processes that train together run in the tests: both stages on a tiny line, from sections given as JSON.

fakes_spread.py LINE OUT SFT PREFERENCE

The libraries are imported once, and each process is a fork with the environment that a launcher would have given it.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from serving.slots import free_port
from tests.fakes_training import TinyLine, sft_section
from training.preference import train_preference
from training.preference_section import PreferenceSection
from training.progress import silent
from training.ranks import leave
from training.sft import train_sft

PROCESSES = 2


def main(*asked: str) -> int:
    """Start the processes; 0 when all of them ended well."""
    port = str(free_port())
    children = [pid for rank in range(PROCESSES) if (pid := _fork(rank, port, *asked))]
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in children)


def _fork(rank: int, port: str, *asked: str) -> int:
    if pid := os.fork():
        return pid
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    os.environ |= dict(zip(names, map(str, (rank, rank, PROCESSES, PROCESSES)), strict=True))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    status = 1
    try:
        train(Path(asked[0]), Path(asked[1]), *asked[2:])
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
    leave()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
