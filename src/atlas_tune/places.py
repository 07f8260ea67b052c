"""Where things lie on this machine: what we may make again, and data that we only read."""

from __future__ import annotations

import os
from pathlib import Path


def cache_directory() -> Path:
    """Where what was converted once is kept: ``ATLAS_TUNE_CACHE``, else ``~/.cache/atlas-tune``."""
    return Path(os.environ.get("ATLAS_TUNE_CACHE", "~/.cache/atlas-tune")).expanduser()


def data_directory() -> Path:
    """Where data of others are read: ``ATLAS_TUNE_DATA``, else ``../shared/data``."""
    return Path(os.environ.get("ATLAS_TUNE_DATA", "../shared/data")).expanduser()
