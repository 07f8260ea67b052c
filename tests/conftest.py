"""Settings of all tests."""

import os

from hypothesis import settings

# The same examples in every run: a test that fails by luck stops whoever did not cause it.
# HYPOTHESIS_PROFILE=default looks for new ones.
settings.register_profile("fixed", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
