"""What a run gives its selectors besides the options that a recipe writes down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atlas_tune.errors import UsageError
from atlas_tune.trajectory import PAPER_BUDGET, Selection, StepLabel, Trajectory

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv
    from atlas_tune.llm import Journal


@dataclass(frozen=True, slots=True)
class Context:
    """Everything is optional: a selector asks for what it needs and says what is missing."""

    share: float = PAPER_BUDGET
    """The budget of the run; the oracle tells it to the model."""
    other: Sequence[Selection] | None = None
    """The selections of the other arm, for ``complement`` and a matched ``random``."""
    journal: Journal | None = None
    """Where the oracle keeps its raw answers, so that none is paid for twice."""
    imported: Sequence[StepLabel] = ()
    """The labels that came with imported data, for ``import``."""
    make_environment: Callable[[str], TextEnv] | None = None
    """Builds an environment by name, for selectors that play."""
    model: str | None = None
    """The base policy π₀, as ``--model`` or the recipe names it, for selectors that ask one."""
    trajectories: Sequence[Trajectory] = ()
    """All trajectories of the run, for selectors that compare them or tune on some of them."""
    directory: Path | None = None
    """Where a selector may keep files of its own, such as a reference model."""

    def environments(self, selector: str) -> Callable[[str], TextEnv]:
        """What builds environments.

        Raises:
            UsageError: the run gives none.
        """
        if self.make_environment is None:
            raise UsageError(
                f"The selector '{selector}' plays trajectories again and got no environments to "
                "play them in: set make_environment in its context."
            )
        return self.make_environment

    def base_model(self, selector: str, own: str | None = None) -> str:
        """The model that a selector asks: its own option, else the run's.

        Raises:
            UsageError: neither names one.
        """
        model = own or self.model
        if model is None:
            raise UsageError(f"The selector '{selector}' asks a model: name it with --model.")
        return model
