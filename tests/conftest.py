"""What every test may count on, however the suite was started."""

import os
import signal

import pytest

from training.environment import stage_environment

# Several workers share the cores: their threads sleep soon, as those of a stage do. It counts only before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", stage_environment(1)["GOMP_SPINCOUNT"])

# A command started in the background of a script ignores Ctrl-C, and so does all it starts; some tests send exactly that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """A case of raw bytes goes by its parameter's name: a gzip's bytes hold the time, and two workers must collect the same names."""
    return argname if isinstance(val, bytes) else None
