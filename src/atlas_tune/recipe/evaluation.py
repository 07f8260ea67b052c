"""The recipe's evaluation: where models act, and what is held against what."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from atlas_tune.recipe.section import Name, Section
from atlas_tune.tune.settings import Precision


class EvaluateOn(Section):
    """Tasks to evaluate on."""

    environment: str
    """The environment."""
    name: Name = ""
    """Its name in files and reports, needed where an environment stands here twice; the
    environment's where it is left out."""
    role: Literal["held-in", "held-out"] | None = None
    """Whether runs of such tasks were trained on; reports give a mean of each role."""
    tasks: int = Field(ge=1)
    """How many tasks, from the start of the split."""
    split: str = "test"
    """The split they come from."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the environment's ``tasks`` takes, such as a difficulty."""
    max_steps: int | None = Field(None, ge=1)
    """The step limit; AgentGym's where it is left out."""

    @property
    def place(self) -> str:
        """What files and reports call it."""
        return self.name or self.environment


class EvaluateSettings(Section):
    """How models are evaluated."""

    environments: tuple[EvaluateOn, ...] = Field(min_length=1)
    """The environments."""
    untuned: bool = True
    """Evaluate the base model too."""
    against: tuple[str, ...] | None = None
    """Arms that every other arm is held against, on the same tasks. Where it is left out:
    ``untuned`` if it is evaluated, and ``all`` if there is such an arm."""
    delta: float = Field(0.05, gt=0, lt=1)
    """The smallest difference that matters, as a share of one: within it two arms are called
    equivalent, and reports say how many tasks and seeds would find it."""
    batch_size: int = Field(32, ge=1)
    """Episodes that run at once."""
    max_new_tokens: int = Field(256, ge=1)
    """The longest reply; a longer one is cut there."""
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Of the replies; 0 is greedy. Above 0 a reply's random numbers follow from the training seed,
    the task and the turn, so that all arms of a seed draw alike."""
    loop_limit: int | None = Field(None, ge=2)
    """End an episode after so many turns in a row that are the same, in word and in answer: a
    greedy agent rarely leaves such a loop, and pays for it to the step limit. Off where it is left
    out."""
    precision: Precision = "bfloat16"
    """Arithmetic of the acting model."""
