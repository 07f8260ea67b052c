"""The arms of a recipe that ask an oracle: one budget for all of them, over all runs."""

from __future__ import annotations

from collections.abc import Sequence

from atlas_tune.llm import Journal
from atlas_tune.pipeline.layout import Layout
from atlas_tune.recipe import ArmSettings, Recipe
from atlas_tune.select import selector_options
from atlas_tune.select.oracle import OracleOptions
from atlas_tune.select.oracle.asking import OracleJob
from atlas_tune.trajectory import Trajectory


def check_oracles(recipe: Recipe) -> None:
    """Look at every oracle's price, budget and tokenizer before the first hour of work.

    Raises:
        UsageError: one of them would end its arm at the first call.
    """
    for arm in recipe.arms:
        options = selector_options(arm.selector, arm.options)
        if isinstance(options, OracleOptions):
            recipe.oracle.terms().check(options)


def oracle_job(
    recipe: Recipe,
    arm: ArmSettings,
    layout: Layout,
    journal: Journal,
    trajectories: Sequence[Trajectory],
) -> OracleJob | None:
    """The oracle of an arm with the recipe's budget; None where the arm asks none.

    What any journal in the run's directory says was spent counts against the budget, also that
    of an arm that the recipe has no more.

    Raises:
        UsageError: as :class:`OracleJob` says.
    """
    options = selector_options(arm.selector, arm.options)
    if not isinstance(options, OracleOptions):
        return None
    found = sorted(journal.path.parent.glob(layout.journal("*").name))
    return OracleJob(
        options,
        recipe.arm_budget(arm),
        journal,
        layout.labels(arm.name),
        trajectories,
        recipe.oracle.terms(),
        others=[path for path in found if path != journal.path],
    )
