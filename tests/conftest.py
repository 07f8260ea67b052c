"""Settings of all tests."""

import os

from hypothesis import settings

# The same examples in every run: a test that fails by luck stops whoever did not cause it.
# HYPOTHESIS_PROFILE=random looks for new ones. No deadline: a slow machine is no failure.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
