"""What every test of the engine runs under."""

import pytest

from hptune.engine import worker


@pytest.fixture(autouse=True)
def _fresh_process():
    """Problems that a worker keeps are another test's."""
    worker._kept.clear()
    yield
    worker._kept.clear()
