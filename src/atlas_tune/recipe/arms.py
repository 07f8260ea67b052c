"""The recipe's arms: the ways to choose the steps that carry loss, and what oracles may cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from atlas_tune.recipe.section import Name, Section, ShareOfSteps
from atlas_tune.select.oracle.accounting import Terms


class ArmSettings(Section):
    """One way to choose the steps that carry loss; each arm gives one model per seed."""

    name: Name
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


class OracleSettings(Section):
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
