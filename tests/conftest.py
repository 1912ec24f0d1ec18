"""What every test may count on, however the suite was started."""

import os
import signal

import pytest

# Several workers share the cores. A thread that spins while it waits for one that has no core costs twenty times the work (measured
# with two trainings of two threads on two cores); stages and engines, which are started, set their own. Before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

# A command started in the background of a script ignores Ctrl-C, and so does all it starts; some tests send exactly that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """A case of raw bytes goes by its parameter's name: a gzip's bytes hold the time, and two workers must collect the same names."""
    return argname if isinstance(val, bytes) else None
