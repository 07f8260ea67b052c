"""The recipe: one YAML file that says everything about a run.

Unknown keys are refused with the nearest valid one; every field has its meaning beside it. Paths
are relative to the recipe file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from atlas_tune.agents.local_model import DEFAULT_MODEL
from atlas_tune.checked import checked, parse_yaml
from atlas_tune.environments import check_environment
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import AtlasError, UsageError, nearest
from atlas_tune.select import selector_options
from atlas_tune.select.combine import CombineOptions
from atlas_tune.select.controls.matched import RandomOptions
from atlas_tune.select.oracle import OracleOptions
from atlas_tune.select.oracle.accounting import Terms
from atlas_tune.select.registry import located_selector
from atlas_tune.trajectory import PAPER_BUDGET
from atlas_tune.trajectory.formats import FORMATS
from atlas_tune.tune.settings import Precision, TuneSettings

SEED_LIMIT = 2**32 - 1
"""The largest training seed: numpy takes no larger one, and none below 0."""
_HABITS = Habits()
ShareOfSteps = Annotated[float, Field(ge=0, le=1)]
"""A share of a trajectory's steps."""
_MATCHED = ("complement", "random")
"""Selectors whose ``of`` names the arm that they are held against."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class HabitSettings(_Section):
    """How often a scripted expert strays, as probabilities; see docs/environments."""

    look: float = Field(_HABITS.look, ge=0, le=1)
    """Looking where nothing new need be learnt."""
    slip: float = Field(_HABITS.slip, ge=0, le=1)
    """A mistaken action, followed by its repair."""
    detour: float = Field(_HABITS.detour, ge=0, le=1)
    """A harmless action that the task does not need."""


class Collect(_Section):
    """Runs of a scripted expert."""

    collect: str
    """The environment."""
    tasks: int = Field(ge=1)
    """How many tasks, from the start of the split."""
    split: str = "train"
    """The split they come from."""
    seed: int = 0
    """Of the expert's habits."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the environment's ``tasks`` takes, such as a difficulty."""
    habits: HabitSettings = HabitSettings()
    """How often the expert strays."""


class Import(_Section):
    """Runs on file."""

    path: Path = Field(alias="import")
    """A file of trajectories, in any format that ``atlas-tune import`` reads; ``$NAME`` in it is
    an environment variable."""
    format: str | None = None
    """Force a format instead of telling it by its content."""
    success: bool | None = None
    """Only runs known to succeed, or to fail."""
    min_reward: float | None = None
    """Least reward."""
    max_steps: int | None = Field(None, ge=1)
    """Largest number of agent steps."""
    sample: int | None = Field(None, ge=1)
    """So many of the runs that are left, drawn by lot; all where it is left out."""
    seed: int = 0
    """Of the draw."""


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


class ArmSettings(_Section):
    """One way to choose the steps that carry loss; each arm gives one model per seed."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The arm's name in files and reports."""
    selector: str
    """The selector that labels the steps: a name, or a function of your own as
    ``./mine.py:label``."""
    of: str | None = None
    """For ``complement`` and ``random``: the arm that is matched, in its number of steps and in
    what ``random``'s option ``match`` names besides."""
    budget: float | None = Field(None, gt=0, le=1)
    """The largest share of a trajectory's steps; the recipe's ``budget`` where it is left out."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of the selector."""
    tune: dict[str, Any] = Field(default_factory=dict)
    """Settings of the recipe's ``tune`` that this arm has otherwise, such as more epochs."""
    redraw: bool = False
    """Draw the steps anew for each training seed: the selector's option ``seed`` is that seed.
    What the arm shows then holds for other draws too."""

    def chosen_with(self, seed: int) -> ArmSettings:
        """The arm as its steps are chosen for a training seed."""
        if not self.redraw:
            return self
        options = {**self.options, "seed": seed}
        return self.model_copy(update={"name": f"{self.name}.{seed}", "options": options})


class OracleSettings(_Section):
    """What asking oracles may cost and should give, for all arms of ``selector: oracle``."""

    budget_usd: float | None = Field(None, gt=0)
    """The most to spend on all of them together, over all runs in this directory; null is no
    limit. What it does not pay for stays unlabelled, and a run with more goes on from there."""
    prices: Path | None = None
    """A file of prices in USD per million tokens that take precedence over the shipped ones."""
    expect: dict[str, tuple[ShareOfSteps, ShareOfSteps]] = Field(default_factory=dict)
    """By environment, the lowest and highest share of selected steps that is no reason for alarm;
    where it is left out, a third of the arm's budget to the budget."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> OracleSettings:
        for environment, (low, high) in self.expect.items():
            if low > high:
                raise ValueError(
                    f"expect.{environment} goes from {low:g} to {high:g}: the lowest share first"
                )
        return self

    def terms(self) -> Terms:
        """The same, as oracles take them."""
        return Terms(self.budget_usd, self.prices, self.expect)


class EvaluateOn(_Section):
    """Tasks to evaluate on."""

    environment: str
    """The environment."""
    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
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


class EvaluateSettings(_Section):
    """How models are evaluated; decoding is greedy."""

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
    precision: Precision = "bfloat16"
    """Arithmetic of the acting model."""


class Recipe(_Section):
    """A whole run: data, arms, tuning, evaluation."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run's name, and its directory under ``runs/``."""
    notes: tuple[str, ...] = ()
    """What the run does and does not show; printed at the top of the report."""
    model: str = DEFAULT_MODEL
    """The base model: a hub id, a directory, or a GGUF file."""
    data: tuple[Source, ...] = Field(min_length=1)
    """Where the expert runs come from."""
    budget: float = Field(PAPER_BUDGET, gt=0, le=1)
    """m of the paper: the largest share of a trajectory's steps that may carry loss."""
    arms: tuple[ArmSettings, ...] = Field(min_length=1)
    """What is compared."""
    seeds: tuple[Annotated[int, Field(ge=0, le=SEED_LIMIT)], ...] = Field((0,), min_length=1)
    """Training seeds; each arm is tuned once with each."""
    tune: TuneSettings = TuneSettings()
    """How models are tuned; the same for all arms, but for what an arm's own ``tune`` says."""
    processes: int = Field(1, ge=1)
    """Devices of this machine to tune on: above 1, torchrun starts so many processes."""
    keep_weights: bool = True
    """Keep the tuned weights. Otherwise those of an arm and seed are removed when its evaluations
    are done, and made again if another one is asked for."""
    oracle: OracleSettings = OracleSettings()
    """What asking oracles may cost and should give."""
    evaluate: EvaluateSettings
    """How they are evaluated."""

    @model_validator(mode="after")
    def _names_agree(self) -> Recipe:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names) or "untuned" in names:
            raise ValueError("arms need different names, and 'untuned' is taken by the base model")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds names a seed twice: {list(self.seeds)}")
        places = [where.place for where in self.evaluate.environments]
        if len(set(places)) < len(places):
            raise ValueError(
                "evaluate.environments names an environment twice: give each a 'name' of its own"
            )
        known = self._evaluated()
        for name in self.evaluate.against or ():
            if name not in known:
                raise ValueError(
                    f"evaluate.against names '{name}', which is no arm: {nearest(name, known)}"
                )
        for place, arm in enumerate(self.arms):
            self._check_arm(arm, names[:place])
        self._check_oracles()
        collected = [source.collect for source in self.data if isinstance(source, Collect)]
        acted_in = [where.environment for where in self.evaluate.environments]
        for name in (*acted_in, *collected):
            try:
                check_environment(name)
            except UsageError as error:
                raise ValueError(str(error)) from error
        formats = [source.format for source in self.data if isinstance(source, Import)]
        for format_name in formats:
            if format_name is not None and format_name not in FORMATS:
                raise ValueError(
                    f"there is no format '{format_name}': {nearest(format_name, FORMATS)}"
                )
        return self

    def _check_arm(self, arm: ArmSettings, before: list[str]) -> None:
        options = selector_options(arm.selector, arm.options)
        if arm.selector == "complement" and arm.of is None:
            raise ValueError(f"the arm '{arm.name}' needs 'of': the arm whose complement it is")
        if isinstance(options, RandomOptions) and options.needs_other and arm.of is None:
            raise ValueError(f"the arm '{arm.name}' needs 'of': the arm that it shall match")
        if arm.of is not None and arm.selector not in _MATCHED:
            raise ValueError(f"'of' goes with {' or '.join(_MATCHED)}, not with '{arm.selector}'")
        if arm.redraw and ("seed" in arm.options or "seed" not in type(options).model_fields):
            raise ValueError(
                f"the arm '{arm.name}' is drawn anew for each seed, so its selector needs an "
                "option 'seed', which is not given"
            )
        if arm.of is not None and any(other.redraw for other in self.arms if other.name == arm.of):
            raise ValueError(f"the arm '{arm.name}' names '{arm.of}', which is drawn for each seed")
        try:
            self.arm_tune(arm)
        except UsageError as error:
            raise ValueError(f"the arm '{arm.name}', tune: {error}") from error
        if arm.of is not None and arm.of not in before:
            raise ValueError(
                f"the arm '{arm.name}' names '{arm.of}', which must be an arm above it: "
                + nearest(arm.of, before)
            )

    def _check_oracles(self) -> None:
        found = {arm.name: selector_options(arm.selector, arm.options) for arm in self.arms}
        are_oracles = [isinstance(options, OracleOptions) for options in found.values()]
        if self.oracle != OracleSettings() and not any(are_oracles):
            raise ValueError("oracle is set, and no arm has the selector 'oracle'")
        for name, options in found.items():
            # Its parts share a client with nobody, so no sum is kept of what they spend.
            if self.oracle.budget_usd is not None and _asks_inside(options):
                raise ValueError(
                    f"the arm '{name}' asks an oracle as a part of 'combine', which "
                    "oracle.budget_usd does not reach: give the oracle an arm of its own and "
                    "combine its labels"
                )

    def _evaluated(self) -> list[str]:
        return [*(["untuned"] if self.evaluate.untuned else []), *(arm.name for arm in self.arms)]

    def compared_against(self) -> tuple[str, ...]:
        """The names of the arms that every other arm is held against."""
        if self.evaluate.against is not None:
            return self.evaluate.against
        return tuple(name for name in ("untuned", "all") if name in self._evaluated())

    def arm_budget(self, arm: ArmSettings) -> float:
        """The budget of an arm: its own, or the recipe's."""
        return self.budget if arm.budget is None else arm.budget

    def arm_tune(self, arm: ArmSettings) -> TuneSettings:
        """How an arm is tuned.

        Raises:
            UsageError: its own settings hold an unknown key or a value that does not fit.
        """
        return checked(TuneSettings, {**self.tune.model_dump(exclude_unset=True), **arm.tune})


def _asks_inside(options: BaseModel) -> bool:
    """Whether a combination has an oracle among its parts, or theirs."""
    if not isinstance(options, CombineOptions):
        return False
    parts = [
        selector_options(part.selector, part.options) for part in options.parts if part.selector
    ]
    return any(isinstance(part, OracleOptions) or _asks_inside(part) for part in parts)


def load_recipe(path: Path) -> Recipe:
    """The recipe of a YAML file.

    Raises:
        AtlasError: there is no such file, or it is not YAML.
        UsageError: a key is unknown or a value does not fit; the message names the place, and
            the nearest valid key.
    """
    if not path.is_file():
        raise AtlasError(f"There is no recipe {path}. Check the path.")
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise AtlasError(
            f"{path} is not UTF-8 text, at byte {error.start}: save it as UTF-8."
        ) from error
    except AtlasError as error:
        raise type(error)(f"{path}, {error}") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{path} is not a recipe: it should be a list of keys and values.")
    try:
        return _resolved(checked(Recipe, raw), path.parent)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _resolved(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with its file paths made relative to the working directory."""
    data = tuple(
        source.model_copy(update={"path": _placed(source.path, base)})
        if isinstance(source, Import)
        else source
        for source in recipe.data
    )
    arms = tuple(_located(arm, base) for arm in recipe.arms)
    oracle = recipe.oracle
    if oracle.prices is not None:
        oracle = oracle.model_copy(update={"prices": base / oracle.prices.expanduser()})
    return recipe.model_copy(update={"data": data, "arms": arms, "oracle": oracle})


def _placed(path: Path, base: Path) -> Path:
    """A path with ``~`` and environment variables in place; one that is not set stays as it is,
    so that a recipe can be read where its data are not."""
    expanded = Path(os.path.expandvars(path.expanduser()))
    return expanded if expanded.parts[0].startswith("$") else base / expanded


def _located(arm: ArmSettings, base: Path) -> ArmSettings:
    selector, options = located_selector(arm.selector, arm.options, base)
    return arm.model_copy(update={"selector": selector, "options": options})
