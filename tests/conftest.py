"""What every test runs under."""

from hypothesis import settings

# The same examples in every run: a test that fails, fails for everybody.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.load_profile("fixed")
