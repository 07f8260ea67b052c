"""What is shown of single runs: how evaluations failed, and training trajectories in full."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from atlas_tune.errors import nearest
from atlas_tune.report.fields import Count, Value, Words

FailureKind = Literal["error", "format", "loop", "invalid", "step limit", "wrong action"]
FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
"""In the order in which they are looked for: an episode has the first that fits."""


class Failures(Value):
    """How the episodes of one arm in one environment ended, over all its seeds."""

    arm: str
    environment: str
    episodes: Count
    solved: Count
    by_kind: dict[str, Count] = Field(default_factory=dict)
    """Episodes that were not solved, by why; each has one of ``FAILURE_KINDS``.

    - ``error``: the environment was lost, or the conversation outgrew the model;
    - ``format``: mostly no readable action;
    - ``loop``: the same action had the same answer three times or more;
    - ``invalid``: mostly actions that the environment could not take;
    - ``step limit``: all turns were used up;
    - ``wrong action``: the episode ended early, and not in success.
    """

    @model_validator(mode="after")
    def _each_episode_has_one_end(self) -> Self:
        for kind in self.by_kind:
            if kind not in FAILURE_KINDS:
                hint = nearest(kind, FAILURE_KINDS)
                raise ValueError(f"no kind of failure: '{kind}'; {hint}")
        counted = self.solved + sum(self.by_kind.values())
        if counted != self.episodes:
            raise ValueError(
                f"{self.episodes} episodes are {self.solved} solved and "
                f"{counted - self.solved} failed; that does not add up"
            )
        return self


class Actions(Value):
    """What the steps that an arm trains do, and what its models do, in one environment.

    Counts are by the first word of an action, or by the name of the tool that is called;
    ``(none)`` is a step in which no action can be read.
    """

    arm: str
    environment: str
    trained: dict[str, Count] = Field(default_factory=dict)
    """Of the selected steps of training runs of this kind; empty where there are none."""
    taken: dict[str, Count] = Field(default_factory=dict)
    """Of all turns of the arm's episodes, over its seeds."""


class TranscriptTurn(Value):
    """One turn of an evaluated agent."""

    text: Words
    """The reply as it was written."""
    observation: Words = ""
    """What came back."""
    reward: float | None = None
    """That this turn earned."""


class Transcript(Value):
    """An evaluation episode in full."""

    transcript_id: str
    arm: str
    seed: int | None = None
    environment: str
    task_id: Words
    kind: str
    """One of ``FAILURE_KINDS``, or ``solved``."""
    reward: float | None = None
    turns: tuple[TranscriptTurn, ...]


class ExampleStep(Value):
    """One step of an example; kind, score and reason are those of the ``critical`` arm."""

    step_id: int
    source: Literal["system", "user", "agent"]
    text: Words
    observation: Words | None = None
    copied: bool = False
    """Context that no expert wrote for this task; never trained."""
    critical: dict[str, bool] = Field(default_factory=dict)
    """For each arm, whether it selected this step."""
    kind: str | None = None
    score: float | None = None
    reason: Words | None = None

    @property
    def own(self) -> bool:
        """Whether the step is an expert's own and so may be trained."""
        return self.source == "agent" and not self.copied


class Example(Value):
    """One training trajectory, shown in full."""

    trajectory_id: str
    environment: str | None
    task_id: str | None
    reward: float | None = None
    success: bool | None = None
    steps: tuple[ExampleStep, ...]
