"""What every test runs under."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings
from outside import TINY, hptune

# The same examples in every run: a test that fails, fails for everybody.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.load_profile("fixed")

# A shell's background jobs are started deaf to Ctrl-C, those of nohup to SIGHUP, and so would be the programs that tests start in order
# to interrupt them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with c.yaml, which says `TINY`, and the whole run of it that was never stopped, at runs/tiny."""
    folder = tmp_path_factory.mktemp("a whole run")
    (folder / "c.yaml").write_text(TINY)
    hptune(folder, "run", "c.yaml", "--quiet")
    return folder
