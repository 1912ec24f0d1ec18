"""What every test may count on, however the suite was started."""

import signal

# A command started in the background of a script ignores Ctrl-C, and so does all it starts; some tests send exactly that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
