"""What every test may count on, however the suite was started."""

import signal

import pytest

# A command started in the background of a script ignores Ctrl-C, and so does all it starts; some tests send exactly that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """A case of raw bytes goes by its parameter's name: a gzip's bytes hold the time, and two workers must collect the same names."""
    return argname if isinstance(val, bytes) else None
