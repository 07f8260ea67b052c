"""What a run ran on and with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from atlas_tune import __version__
from atlas_tune.agents.local_model import model_origin

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "minigrid", "gymnasium", "numpy")


def machine() -> dict[str, str]:
    """What the run ran on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {"processor": model, "cores": str(os.cpu_count()), "system": platform.system()}


def versions(model: str, directory: str) -> dict[str, str]:
    """Versions of what decides the numbers; ``directory`` is where the model was loaded from."""
    origin = model_origin(directory)
    found = {
        "atlas-tune": __version__,
        "python": platform.python_version(),
        "model": f"{model}, {origin}" if origin else model,
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
