"""Text environments by name.

Importing this room is cheap; an environment's own dependencies are imported when it is made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from atlas_tune.errors import AtlasError, UsageError, nearest

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv

_ENVIRONMENTS = {
    "alfworld": ("atlas_tune.environments.alfworld", "AlfWorld"),
    "babyai": ("atlas_tune.environments.babyai", "BabyAI"),
    "textcraft": ("atlas_tune.environments.textcraft", "TextCraft"),
}

ENVIRONMENT_NAMES = tuple(_ENVIRONMENTS)


def make_environment(name: str) -> TextEnv:
    """A fresh environment.

    Raises:
        UsageError: no such environment.
        AtlasError: a package that it needs is not installed.
    """
    if name not in _ENVIRONMENTS:
        raise UsageError(f"There is no environment '{name}': {nearest(name, _ENVIRONMENTS)}")
    module, cls = _ENVIRONMENTS[name]
    try:
        environment: TextEnv = getattr(importlib.import_module(module), cls)()
    except ModuleNotFoundError as error:
        raise AtlasError(
            f"The environment '{name}' needs the package '{error.name}': "
            "pip install 'atlas-tune[environments]'."
        ) from error
    return environment
