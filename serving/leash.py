"""Holds an engine on a leash: when the server that started it dies, however it dies, nothing of the engine is left.

    python -I -S leash.py PROGRAM ARGUMENT…

A process of its own, leader of the group in which the engine and all its children live. Its standard input is the leash: the
kernel closes the other end when the server goes, and then the whole group is killed. What comes in on it is passed on. SIGTERM is
passed to the engine alone, not to the group, so that it can finish what it is answering with its workers alive. Ends with its status.
Standard library only, because one of these stays in memory beside every engine. Next: `slots.py`, which starts it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from types import FrameType

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_NOT_FOUND = 127


def main(argv: list[str]) -> int:
    """Run the engine to its end; returns its exit status, 128 + n when signal n ended it."""
    try:
        # The fork is safe here: no thread exists yet.
        engine = subprocess.Popen(argv, stdin=subprocess.PIPE, preexec_fn=_die_with_leash)  # noqa: PLW1509
    except OSError as error:
        print(f"cannot start {argv[0]}: {error}", file=sys.stderr)
        return _NOT_FOUND

    def pass_on(number: int, frame: FrameType | None) -> None:
        engine.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    assert engine.stdin is not None
    threading.Thread(target=_pass_input_on, args=(engine.stdin.fileno(),), daemon=True).start()
    status = engine.wait()
    return status if status >= 0 else 128 - status


def _die_with_leash() -> None:
    # For the case that somebody kills the leash alone.
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _pass_input_on(to: int) -> None:
    while said := os.read(0, 1024):
        with contextlib.suppress(BrokenPipeError):
            os.write(to, said)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
