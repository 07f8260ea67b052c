"""Settings of all tests."""

import os
import signal

import pytest
from hypothesis import settings

# The same examples in every run: a test that fails by luck stops whoever did not cause it.
# HYPOTHESIS_PROFILE=random looks for new ones. No deadline: a slow machine is no failure.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A shell starts what is in the background with Ctrl-C ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
