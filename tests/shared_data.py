"""The real data beside the project, for tests that are marked ``shared_data``."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def shared_data() -> Path:
    """The directory of the real data; skips the test where there is none."""
    path = Path(os.environ.get("ATLAS_TUNE_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip("no real data on this machine: set ATLAS_TUNE_DATA to have this test run")
    return path
