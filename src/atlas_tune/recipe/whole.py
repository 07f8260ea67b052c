"""The whole recipe, and whether its parts agree."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from atlas_tune.agents.local_model import DEFAULT_MODEL
from atlas_tune.checked import checked
from atlas_tune.environments import check_environment
from atlas_tune.errors import UsageError, nearest
from atlas_tune.recipe.arms import ArmSettings, OracleSettings
from atlas_tune.recipe.audit import AuditSettings
from atlas_tune.recipe.data import Collect, Import, Source
from atlas_tune.recipe.evaluation import EvaluateSettings
from atlas_tune.recipe.section import Name, Section
from atlas_tune.select import selector_options
from atlas_tune.select.combine import CombineOptions
from atlas_tune.select.controls.matched import RandomOptions
from atlas_tune.select.oracle import OracleOptions
from atlas_tune.trajectory import PAPER_BUDGET
from atlas_tune.trajectory.formats import FORMATS
from atlas_tune.tune.settings import TuneSettings

SEED_LIMIT = 2**32 - 1
"""The largest training seed: numpy takes no larger one, and none below 0."""
_MATCHED = ("complement", "random")
"""Selectors whose ``of`` names the arm that they are held against."""


class Recipe(Section):
    """A whole run: data, arms, tuning, evaluation."""

    name: Name
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
    audit: AuditSettings | None = None
    """How the selections themselves are measured, by the untuned model; not at all where it is
    left out."""

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
        self._check_audit()
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

    def _check_audit(self) -> None:
        asked = () if self.audit is None else self.audit.arms or ()
        takes_all = {arm.name: arm.selector == "all" for arm in self.arms}
        for name in asked:
            if name not in takes_all:
                raise ValueError(
                    f"audit.arms names '{name}', which is no arm: {nearest(name, takes_all)}"
                )
            if takes_all[name]:
                raise ValueError(
                    f"audit.arms names '{name}', which takes every step: there are no other "
                    "steps to hold its own against"
                )

    def audited(self) -> tuple[ArmSettings, ...]:
        """The arms whose selections are audited, in the order of the recipe."""
        if self.audit is None:
            return ()
        asked = self.audit.arms
        return tuple(
            arm
            for arm in self.arms
            if (arm.selector != "all" if asked is None else arm.name in asked)
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
