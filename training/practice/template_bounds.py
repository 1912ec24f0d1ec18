"""A chat template is a program that comes with a model: it is tried out where it can do no harm, before anything renders with it.

The sandbox in which templates run keeps them from files and from Python, but not from looping for ever or from filling the memory. So
the first rendering happens in a child of this process with a bound on its processor time, its memory and what it writes. What the
template writes is not judged here: see `template.py`.
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
_FINE, _TOO_LONG, _TOO_MUCH_MEMORY = 0, 3, 4


def check_bounds(template: str | dict[str, str] | None, render: Callable[[], str]) -> None:
    """Refuse a template that is too long, and one that does not render a short conversation (`render`) within its bounds.

    A template that fails in any other way passes: whoever renders with it next says what is wrong with it.

    Raises:
        ModelError: naming the bound that was passed.
    """
    written: Any = template.values() if isinstance(template, dict) else [template or ""]
    longest = max((len(each) for each in written), default=0)
    if longest > MAX_TEMPLATE_CHARACTERS:
        raise _refused(f"it has {longest:,} characters, and {MAX_TEMPLATE_CHARACTERS:,} are allowed")
    child = os.fork()
    if child == 0:
        _try_out(render)
    _, status = os.waitpid(child, 0)
    passed = {
        -signal.SIGXCPU: f"two lines of conversation were not rendered within {_PROCESSOR_S} s of processor time",
        _TOO_LONG: f"it makes more than {_MAX_RENDERED_CHARACTERS:,} characters of two lines of conversation",
        _TOO_MUCH_MEMORY: f"rendering two lines of conversation takes more than {_MEMORY_BYTES // 1024**2} MiB",
    }
    code = os.waitstatus_to_exitcode(status)
    if code in passed:
        raise _refused(passed[code])


def _try_out(render: Callable[[], str]) -> None:
    """Never returns: the child of a process with threads of its own must neither clean up for its parent nor go on in its place."""
    code = _FINE
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (_PROCESSOR_S, _PROCESSOR_S + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + _MEMORY_BYTES,) * 2)
        if len(render()) > _MAX_RENDERED_CHARACTERS:
            code = _TOO_LONG
    except MemoryError:
        code = _TOO_MUCH_MEMORY
    finally:
        os._exit(code)


def _data_bytes() -> int:
    """What this process has of its own already: the kernel counts it in RLIMIT_DATA."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))


def _refused(what: str) -> ModelError:
    return ModelError(
        f"the chat template is refused: {what}",
        why="a template runs for every row and every request: one that does not end stops training, and later the server, for all",
        do="put the template that the model's makers publish into chat_template.jinja beside the tokenizer, or use another base model",
    )
