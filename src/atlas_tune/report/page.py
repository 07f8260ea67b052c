"""The page: one HTML file that loads nothing, runs nothing and reads well on any screen.

The file carries its styles and drawings; a content security policy forbids everything else, so
that a trajectory that smuggles in markup could not act even if the escaping failed. Jinja's
autoescape and :func:`atlas_tune.report.wording.visible` see to it that it does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

import jinja2

from atlas_tune import __version__
from atlas_tune.report import figures, palette, wording
from atlas_tune.report.results import Example, ExampleStep, Results
from atlas_tune.report.scores import score_of
from atlas_tune.report.summary import summary
from atlas_tune.report.templating import templates


def render_page(results: Results) -> str:
    """The page of a run; the same results give the same bytes."""
    main = results.main_arm
    page = _templates().get_template("page.html")
    return page.render(
        version=__version__,
        results=results,
        summary=summary(results),
        main=main.name if main else None,
        looks=palette.looks(results),
        cells={
            (arm.name, environment.name): score_of(results, arm, environment)
            for arm in results.arms
            for environment in results.environments
        },
        several_seeds=len(results.seeds) > 1,
        scores=figures.success_panels(results),
        losses=figures.loss_panels(results),
        rewards=figures.reward_panels(results),
        positions=figures.position_panels(results),
        kinds=_kinds(results),
    )


@cache
def _templates() -> jinja2.Environment:
    return templates(
        (
            wording.percent,
            wording.percent_range,
            wording.decimal,
            wording.decimal_range,
            wording.count,
            wording.p_value,
            wording.duration,
            wording.kind_name,
            wording.budget,
            wording.verdict,
            wording.visible,
            wording.moment,
        ),
        absent=wording.ABSENT,
        critical_steps=critical_steps,
        judged=judged,
    )


def _kinds(results: Results) -> list[str]:
    """The kinds that occur, most frequent first; the unclassified last."""
    total: Counter[str] = Counter()
    for arm in results.arms:
        if arm.classified:
            total.update(arm.kinds)
    named = [kind for kind in total if kind != "none" and total[kind]]
    unclassified = ["none"] if total["none"] else []
    return sorted(named, key=lambda kind: (-total[kind], kind)) + unclassified


def critical_steps(example: Example, arm: str | None) -> list[int]:
    """The ids of the steps that an arm selected."""
    return [step.step_id for step in example.steps if arm and step.critical.get(arm)]


def judged(step: ExampleStep, arms: Sequence[str]) -> list[str]:
    """The arms, in the order of the run, that selected a step."""
    return [arm for arm in arms if step.critical.get(arm)]
