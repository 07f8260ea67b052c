"""The recipe's data: runs that an expert makes, and runs on file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Field, Tag

from atlas_tune.environments.habits import Habits
from atlas_tune.recipe.section import Section

_HABITS = Habits()


class HabitSettings(Section):
    """How often a scripted expert strays, as probabilities; see docs/environments."""

    look: float = Field(_HABITS.look, ge=0, le=1)
    """Looking where nothing new need be learnt."""
    slip: float = Field(_HABITS.slip, ge=0, le=1)
    """A mistaken action, followed by its repair."""
    detour: float = Field(_HABITS.detour, ge=0, le=1)
    """A harmless action that the task does not need."""


class _Runs(Section):
    """Which of a source's runs are used; all where nothing is said."""

    success: bool | None = None
    """Only runs known to succeed, or to fail."""
    min_reward: float | None = None
    """Least reward."""
    min_steps: int | None = Field(None, ge=1)
    """Smallest number of agent steps."""
    max_steps: int | None = Field(None, ge=1)
    """Largest number of agent steps."""
    sample: int | None = Field(None, ge=1)
    """So many of the runs that are left, drawn by lot; all where it is left out."""


class Collect(_Runs):
    """Runs of a scripted expert."""

    collect: str
    """The environment."""
    tasks: int = Field(ge=1)
    """How many tasks, from the start of the split."""
    split: str = "train"
    """The split they come from."""
    seed: int = 0
    """Of the expert's habits, and of the draw of a ``sample``."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the environment's ``tasks`` takes, such as a difficulty."""
    habits: HabitSettings = HabitSettings()
    """How often the expert strays."""


class Import(_Runs):
    """Runs on file."""

    path: Path = Field(alias="import")
    """A file of trajectories, in any format that ``atlas-tune import`` reads; ``$NAME`` in it is
    an environment variable."""
    format: str | None = None
    """Force a format instead of telling it by its content."""
    seed: int = 0
    """Of the draw of a ``sample``."""


def _source_kind(item: Any) -> str | None:
    """Which kind of data an item asks for; None where it is neither or both."""
    if isinstance(item, Collect | Import):
        return type(item).__name__
    asked = [kind for kind in (Collect, Import) if isinstance(item, dict) and _key(kind) in item]
    return asked[0].__name__ if len(asked) == 1 else None


def _key(kind: type[BaseModel]) -> str:
    return kind.__name__.lower()


Source = Annotated[
    Annotated[Collect, Tag("Collect")] | Annotated[Import, Tag("Import")],
    Discriminator(
        _source_kind,
        custom_error_type="source",
        custom_error_message="a data item needs either 'collect' or 'import'",
    ),
]
