"""What every test runs under."""

import signal

from hypothesis import settings

# The same examples in every run: a test that fails, fails for everybody.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.load_profile("fixed")

# A shell's background jobs are started deaf to Ctrl-C, and so would be the programs that tests start in order to interrupt them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
