"""What a run found, as one value: the contract between the pipeline and the report.

The pipeline builds a :class:`Results`; ``results.json`` is its canonical form; the page, the
Markdown and the terminal table are functions of it and of nothing else. Whatever is not in here
is not in the report. Lists are accepted wherever a tuple stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from atlas_tune.errors import nearest

UNTUNED = "untuned"
"""The name of the arm that is the base model as it came."""
CRITICAL = "critical"
"""The name of the arm that the paper proposes."""
DECILES = 10


def _encodable(value: Any) -> Any:
    """Half a surrogate pair, which JSON can carry and UTF-8 cannot, becomes U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


Words = Annotated[str, BeforeValidator(_encodable)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Interval = tuple[float, float]


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Environment(_Value):
    """One environment on which the arms were evaluated."""

    name: str
    split: str
    tasks: Count
    max_steps: Count
    """The step limit of an episode, in agent turns."""
    metric: Literal["success", "reward"]
    """What counts here: the share of solved tasks, or the mean reward where it is graded."""


class Data(_Value):
    """The training trajectories of one environment."""

    environment: str
    trajectories: Count
    steps: Count
    """Agent steps that may be trained."""
    collected_seconds: Seconds | None = None
    """None where the trajectories were imported."""
    mean_steps: float
    success_share: Share | None = None
    """Among the trajectories whose outcome is known; None where none is."""


class Training(_Value):
    """What tuning an arm took. With several seeds, seconds and losses are means over them."""

    optimiser_steps: Count
    rows: Count
    tokens: Count
    """Tokens that entered the model, over all epochs."""
    tokens_before_tail_cut: Count
    supervised_tokens: Count
    seconds: Seconds
    first_loss: float
    last_loss: float

    @property
    def tail_cut_saving(self) -> float:
        """The share of tokens that never entered, because nothing after them is trained."""
        whole = self.tokens_before_tail_cut
        return 1 - self.tokens / whole if whole else 0.0


class Arm(_Value):
    """One way to choose the trained steps, and the model that came of it."""

    name: str
    selector: str
    """The selector's name; empty for the untuned model."""
    budget: float | None = None
    """The largest share of a trajectory's steps that may be trained; None is no limit."""
    reference: bool = False
    """Kept to be compared with (untuned, all steps, random), not proposed."""
    selected_steps: Count = 0
    total_steps: Count = 0
    trajectories: Count = 0
    """Trajectories with at least one selected step."""
    training: Training | None = None
    """None: this arm is the untuned model."""
    kinds: dict[str, Count] = Field(default_factory=dict)
    """Selected steps by kind; ``none`` holds those that nobody classified."""
    positions: tuple[Share, ...] = ()
    """Share of the selected steps by tenth of the trajectory; empty where none is selected."""

    @model_validator(mode="after")
    def _ten_positions(self) -> Self:
        if len(self.positions) not in (0, DECILES):
            raise ValueError(f"positions are {DECILES} shares or none, found {len(self.positions)}")
        return self

    @property
    def classified(self) -> bool:
        """Whether the selector said of which kind its steps are."""
        return any(count for kind, count in self.kinds.items() if kind != "none")

    @property
    def selected_share(self) -> float:
        """The share of all agent steps that this arm trains."""
        return self.selected_steps / self.total_steps if self.total_steps else 0.0


class Result(_Value):
    """One model of one arm, evaluated on the tasks of one environment."""

    arm: str
    seed: int | None = None
    environment: str
    tasks: Annotated[int, Field(ge=1)]
    successes: Count
    success_rate: Share
    interval: Interval
    """Wilson's 95% interval of the success rate."""
    mean_reward: float
    reward_interval: Interval | None = None
    mean_turns: float
    invalid_share: Share
    """The share of turns whose reply held no action that the environment could take."""
    seconds: Seconds


class Comparison(_Value):
    """Two arms on the same tasks: the exact paired test of McNemar on success."""

    arm: str
    against: str
    environment: str
    tasks: Count
    wins: Count
    """Tasks that only ``arm`` solved."""
    losses: Count
    """Tasks that only ``against`` solved."""
    ties: Count
    p_value: Share
    verdict: Literal["better", "worse", "cannot tell"]
    """Of ``arm``, held against ``against``."""
    note: str = ""


class LossPoint(_Value):
    """The loss of one optimiser step; tokens and seconds count from the start of the training."""

    step: Count
    loss: float
    supervised_tokens: Count | None = None
    seconds: Seconds


class LossCurve(_Value):
    """The training loss of one arm and seed."""

    arm: str
    seed: int | None = None
    points: tuple[LossPoint, ...]


class RewardCurve(_Value):
    """How quickly an arm earns: the mean over all tasks of the reward collected by turn k."""

    environment: str
    arm: str
    points: tuple[float, ...]
    """The first is after turn 1; a finished task keeps what it has."""


class ExampleStep(_Value):
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


class Example(_Value):
    """One training trajectory, shown in full."""

    trajectory_id: str
    environment: str | None
    task_id: str | None
    reward: float | None = None
    success: bool | None = None
    steps: tuple[ExampleStep, ...]


class Quarantined(_Value):
    """A record that could not be used."""

    place: Words
    reason: Words


class Results(_Value):
    """Everything that a run found and a reader needs in order to judge it."""

    schema_version: Literal[1] = 1
    name: str
    created_at: str
    """When the run ended, ISO 8601; the report itself reads no clock."""
    recipe: str
    """The recipe, as YAML text."""
    machine: dict[str, str]
    versions: dict[str, str]
    command: str
    environments: tuple[Environment, ...]
    data: tuple[Data, ...] = ()
    arms: tuple[Arm, ...]
    results: tuple[Result, ...]
    comparisons: tuple[Comparison, ...] = ()
    losses: tuple[LossCurve, ...] = ()
    reward_per_step: tuple[RewardCurve, ...] = ()
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    """What this run does and does not show; stands at the top of the page."""
    quarantined: tuple[Quarantined, ...] = ()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        arms = [arm.name for arm in self.arms]
        environments = [environment.name for environment in self.environments]
        for names, noun in ((arms, "arm"), (environments, "environment")):
            if len(set(names)) < len(names):
                raise ValueError(f"two {noun}s have the same name: {', '.join(names)}")
        for place, noun, name in _references(self):
            known = arms if noun == "arm" else environments
            if name not in known:
                hint = nearest(name, known)
                raise ValueError(f"{place} names no {noun} of this run: '{name}'; {hint}")
        return self

    @property
    def seeds(self) -> tuple[int, ...]:
        """The training seeds, in order."""
        return tuple(sorted({r.seed for r in self.results if r.seed is not None}))

    @property
    def main_arm(self) -> Arm | None:
        """The proposed arm: ``critical``, or else the first tuned one that is no reference."""
        tuned = [arm for arm in self.arms if arm.name != UNTUNED and not arm.reference]
        named = [arm for arm in self.arms if arm.name == CRITICAL]
        return next(iter(named + tuned), None)


def _references(results: Results) -> Iterator[tuple[str, str, str]]:
    """Every mention of an arm or environment: where it stands, which of the two, the name."""
    for i, result in enumerate(results.results):
        yield f"results[{i}]", "arm", result.arm
        yield f"results[{i}]", "environment", result.environment
    for i, comparison in enumerate(results.comparisons):
        yield f"comparisons[{i}]", "arm", comparison.arm
        yield f"comparisons[{i}]", "arm", comparison.against
        yield f"comparisons[{i}]", "environment", comparison.environment
    for i, losses in enumerate(results.losses):
        yield f"losses[{i}]", "arm", losses.arm
    for i, rewards in enumerate(results.reward_per_step):
        yield f"reward_per_step[{i}]", "arm", rewards.arm
        yield f"reward_per_step[{i}]", "environment", rewards.environment
