"""A chat template is a program that comes with a model: it is tried out where it can do no harm, before anything renders with it.

The sandbox in which templates run keeps them from files and from Python, but not from looping for ever or from filling the memory. So
the first rendering happens in a child of this process with a bound on its processor time, its memory and what it writes. A child that
dies in any way is a refusal: nobody knows what the template would do to whoever renders with it next. What the template writes is not
judged here: see `template.py`.
"""

import os
import resource
import signal
from collections.abc import Callable
from typing import Any

from training.errors import ModelError

# The longest templates that are published are about 30 kB; a conversation of two lines renders to a few hundred characters with them.
MAX_TEMPLATE_CHARACTERS = 256 * 1024
_MAX_RENDERED_CHARACTERS = 1024 * 1024
_PROCESSOR_S = 5
_MEMORY_BYTES = 512 * 1024**2
_FINE, _TOO_LONG, _TOO_MUCH_MEMORY, _BROKEN_OFF = 0, 3, 4, 5
_NEVER_ENDS = "a template runs for every row and every request: one that does not end stops training, and later the server, for all"
_MAKERS = "put the template that the model's makers publish into chat_template.jinja beside the tokenizer, or use another base model"
_BOUNDS = {
    -signal.SIGXCPU: f"two lines of conversation were not rendered within {_PROCESSOR_S} s of processor time",
    _TOO_LONG: f"it makes more than {_MAX_RENDERED_CHARACTERS:,} characters of two lines of conversation",
    _TOO_MUCH_MEMORY: f"rendering two lines of conversation takes more than {_MEMORY_BYTES // 1024**2} MiB",
}


def check_bounds(template: str | dict[str, str] | None, render: Callable[[], str]) -> None:
    """Refuse a template that is too long, and one that does not render a short conversation (`render`) within its bounds.

    A template at which rendering raises passes: whoever renders with it next says what is wrong with it. A trial that was killed is made
    once more, since a machine without memory kills what it likes.

    Raises:
        ModelError: naming the bound that was passed, or how the trial died.
    """
    written: Any = template.values() if isinstance(template, dict) else [template or ""]
    longest = max((len(each) for each in written), default=0)
    if longest > MAX_TEMPLATE_CHARACTERS:
        raise _refused(f"it has {longest:,} characters, and {MAX_TEMPLATE_CHARACTERS:,} are allowed")
    code = _trial(render)
    if code == -signal.SIGKILL:
        code = _trial(render)
    if code in _BOUNDS:
        raise _refused(_BOUNDS[code])
    if code != _FINE:
        raise _died(code)


def _trial(render: Callable[[], str]) -> int:
    """How a child ended that rendered once: its exit code, or the negative number of the signal that it died of."""
    child = os.fork()
    if child == 0:
        _try_out(render)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _try_out(render: Callable[[], str]) -> None:
    """Never returns: the child of a process with threads of its own must neither clean up for its parent nor go on in its place."""
    code = _BROKEN_OFF
    try:
        for number in (signal.SIGXCPU, signal.SIGTERM):  # what the parent does about them is not for its child to do
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (_PROCESSOR_S, _PROCESSOR_S + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + _MEMORY_BYTES,) * 2)
        code = _rendered(render)
    except MemoryError:
        code = _TOO_MUCH_MEMORY
    finally:
        os._exit(code)


def _rendered(render: Callable[[], str]) -> int:
    try:
        return _TOO_LONG if len(render()) > _MAX_RENDERED_CHARACTERS else _FINE
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # whatever a template raises, the next who renders with it sees again, and says it
        return _FINE


def _data_bytes() -> int:
    """What this process has of its own already: the kernel counts it in RLIMIT_DATA."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))


def _refused(what: str) -> ModelError:
    return ModelError(f"the chat template is refused: {what}", why=_NEVER_ENDS, do=_MAKERS)


def _died(code: int) -> ModelError:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    killed = code == -signal.SIGKILL
    return ModelError(
        f"the chat template is refused: the process that rendered two lines of conversation to try it out {how}" + ", twice" * killed,
        why="whatever renders with it next, training or the server, may die in the same way, and then without a word",
        do=("a machine with too little memory kills so: free some and run it again; else " if killed else "") + _MAKERS,
    )
