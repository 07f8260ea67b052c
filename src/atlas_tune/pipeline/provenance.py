"""What a run ran on and with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from atlas_tune import __version__
from atlas_tune.agents.local_model import model_origin

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "minigrid", "gymnasium", "numpy")
_QUIET: dict[str, Any] = {"capture_output": True, "text": True}


def machine() -> dict[str, str]:
    """What the run ran on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    found = {"processor": model, "cores": str(os.cpu_count()), "system": platform.system()}
    with suppress(ValueError, OSError, AttributeError):  # no such question on this system
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory"] = f"{memory / 2**30:.0f} GiB"
    devices = Counter(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    if devices:
        found["accelerators"] = ", ".join(f"{count} x {name}" for name, count in devices.items())
    return found


def _commit() -> str:
    """The commit of the checkout that this code is run from; empty where it is installed."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    with suppress(OSError, subprocess.CalledProcessError):
        # A package may well be installed inside somebody else's repository.
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, **_QUIET)
        told = subprocess.run([*git, "describe", "--always", "--dirty"], check=True, **_QUIET)
        return f" ({told.stdout.strip()})"
    return ""


def versions(model: str, directory: str) -> dict[str, str]:
    """Versions of what decides the numbers; ``directory`` is where the model was loaded from."""
    origin = model_origin(directory)
    found = {
        "atlas-tune": __version__ + _commit(),
        "python": platform.python_version(),
        "model": f"{model}, {origin}" if origin else model,
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
