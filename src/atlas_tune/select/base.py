"""What every selector offers."""

from __future__ import annotations

from typing import Protocol

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import LabelSource, StepLabel, Trajectory


class CannotLabel(AtlasError):
    """One trajectory that a selector cannot label; the others go on without it."""


class Selector(Protocol):
    """Says of the steps of a trajectory how critical they are.

    A scorer gives every agent step a score, higher for a more critical step. A judge names the
    critical steps in order and says why. Both label *every* agent step, those that are no
    candidates with ``Kind.NONE``, so that a labelled trajectory can be told from an unlabelled
    one. Labels are a function of the trajectory and of ``source``: never of the order in which
    trajectories come.
    """

    @property
    def name(self) -> str:
        """The name under which recipes and labels know the selector."""
        ...

    @property
    def version(self) -> str:
        """Everything besides model and prompt that decides the labels, such as a seed."""
        ...

    @property
    def source(self) -> LabelSource:
        """What stands under every label. Trajectories that hold it are not labelled again."""
        ...

    @property
    def share(self) -> float | None:
        """The selector's own budget where the common one does not apply to it."""
        ...

    @property
    def concurrency(self) -> int:
        """How many trajectories may be labelled at once; above 1, ``label`` is thread-safe."""
        ...

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """The labels of all agent steps; those of a judge in its order of importance.

        Raises:
            CannotLabel: this trajectory cannot be labelled; the message says why.
            AtlasError: nothing can be labelled (no server, no key); the run stops.
        """
        ...


class Alone:
    """The common case: a selector that needs no model, obeys the budget and works alone."""

    name = ""
    version = "1"
    share: float | None = None
    concurrency = 1

    @property
    def source(self) -> LabelSource:
        """The name and version."""
        return LabelSource(self.name, self.version)
