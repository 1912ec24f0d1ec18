"""Imports the training libraries once and forks for every stage, so that five stages do not pay for the same imports five times.

    python -m flows.stage_host [PROGRAM ARGUMENT…]

Reads one JSON line per stage on its standard input, {"request": PATH, "log": PATH, "env": {NAME: VALUE}}, and answers {"ended": STATUS}
on its standard output, where the stage speaks before. The imports go on while a stage runs that does not need them yet. With a PROGRAM,
each stage is that program with the request's path behind it: so on machines with a GPU, where a driver that was touched before a fork
cannot be used after it. Next: `stage_runner.py`, the other end of the pipe.
"""

import gc
import importlib
import json
import os
import select
import sys
import traceback
from pathlib import Path
from typing import Any

from training.environment import die_with_parent

_IMPORTS = (
    "flows.stage_process",
    "training.prepare",
    "transformers",
    "training.base_model",
    "training.builders",
    "training.merge",
    "training.sft",
)
_NOT_FOUND = 127


def main(program: list[str]) -> int:
    """Serve requests until the input ends."""
    imports = [] if program else list(_IMPORTS)
    while True:
        _import_until_asked(imports)
        line = sys.stdin.buffer.readline()
        if not line:
            return 0
        asked = json.loads(line)
        status = _wait(_fork(program, asked), imports)
        os.write(sys.stdout.fileno(), json.dumps({"ended": status}).encode() + b"\n")


def _import_until_asked(imports: list[str]) -> None:
    while imports and not select.select([sys.stdin.buffer], [], [], 0)[0]:
        importlib.import_module(imports.pop(0))


def _fork(program: list[str], asked: dict[str, Any]) -> int:
    """Start a stage whose errors and idle talk go to its log; returns its process id."""
    request: str = asked["request"]
    gc.collect()
    gc.freeze()  # the collector of the child would otherwise copy every page that it looks at
    if pid := os.fork():
        return pid
    status = 1
    try:
        die_with_parent()
        _redirect(Path(asked["log"]))
        os.environ.update(asked["env"])
        if program:
            os.execv(program[0], [*program, request])  # noqa: S606 - a list of arguments, and no shell is what is wanted
        from flows import stage_process

        status = stage_process.main(["stage_process", request])
    except OSError as error:
        print(f"cannot start {program[0] if program else request}: {error}", file=sys.stderr)
        status = _NOT_FOUND
    except BaseException:  # noqa: BLE001 - whatever it is, it ends here and in the log, never in the host's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _redirect(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(file, sys.stderr.fileno())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)


def _wait(pid: int, imports: list[str]) -> int:
    """The stage's exit status, 128 + n when signal n ended it; until then, the imports go on."""
    while imports:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return _exit_status(status)
        importlib.import_module(imports.pop(0))
    return _exit_status(os.waitpid(pid, 0)[1])


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
