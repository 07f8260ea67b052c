"""Text environments by name.

A name is one of :data:`ENVIRONMENT_NAMES`, or ``agentgym:<dialect>@http://host:port`` for one that
runs on a server.

Importing this room is cheap; an environment's own dependencies are imported when it is made.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from atlas_tune.errors import AtlasError, UsageError, nearest

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv

_ENVIRONMENTS = {
    "alfworld": ("atlas_tune.environments.alfworld", "AlfWorld", "environments"),
    "babyai": ("atlas_tune.environments.babyai", "BabyAI", "environments"),
    "scienceworld": ("atlas_tune.environments.scienceworld", "ScienceWorld", "scienceworld"),
    "textcraft": ("atlas_tune.environments.textcraft", "TextCraft", "environments"),
    "wordle": ("atlas_tune.environments.wordle", "Wordle", "environments"),
    "textworldexpress": (
        "atlas_tune.environments.textworldexpress",
        "TextWorldExpress",
        "textworldexpress",
    ),
}
"""Module, class, and the extra that brings what it needs."""
_ALSO_CALLED = {"sciworld": "scienceworld", "lmrlgym_wordle": "wordle"}
"""Names that runs of AgentGym carry."""

ENVIRONMENT_NAMES = tuple(_ENVIRONMENTS)

_SERVED = "agentgym:"
_FORM = "agentgym:<dialect>@http://host:port"


def check_environment(name: str) -> None:
    """Check a name without making the environment: a server need not run yet.

    Raises:
        UsageError: there is no environment of this name.
    """
    if name.startswith(_SERVED):
        from atlas_tune.environments.agentgym.address import Address

        Address.parse(name)
    elif _ALSO_CALLED.get(name, name) not in _ENVIRONMENTS:
        known = nearest(name, [*_ENVIRONMENTS, _FORM])
        raise UsageError(f"There is no environment '{name}': {known}")


def own_name(name: str) -> str:
    """Our name of an environment that runs of AgentGym call otherwise; any other one as it is.

    >>> own_name("sciworld")
    'scienceworld'
    """
    return _ALSO_CALLED.get(name, name)


def make_environment(name: str) -> TextEnv:
    """A fresh environment.

    Raises:
        UsageError: no such environment.
        AtlasError: a package that it needs is not installed, or its server does not answer.
    """
    check_environment(name)
    if name.startswith(_SERVED):
        return _on_server(name)
    module, cls, extra = _ENVIRONMENTS[_ALSO_CALLED.get(name, name)]
    try:
        environment: TextEnv = getattr(importlib.import_module(module), cls)()
    except ModuleNotFoundError as error:
        raise AtlasError(
            f"The environment '{name}' needs the package '{error.name}': "
            f"pip install 'atlas-tune[{extra}]'."
        ) from error
    return environment


def _on_server(name: str) -> TextEnv:
    try:
        from atlas_tune.environments.agentgym.address import Address
        from atlas_tune.environments.agentgym.env import AgentGymEnv
    except ModuleNotFoundError as error:
        raise AtlasError(
            f"An environment on a server needs the package '{error.name}': "
            "pip install 'atlas-tune[environments]'."
        ) from error
    return AgentGymEnv(Address.parse(name))
