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
from atlas_tune.report import acted, figures, palette, wording
from atlas_tune.report.matrix import matrices
from atlas_tune.report.results import Example, ExampleStep, Results
from atlas_tune.report.scores import score_of
from atlas_tune.report.statements import main_comparisons, statements
from atlas_tune.report.summary import paragraphs, progress
from atlas_tune.report.templating import templates
from atlas_tune.report.training_signal import signal_table


def render_page(results: Results) -> str:
    """The page of a run; the same results give the same bytes."""
    main = results.main_arm
    compared = main_comparisons(results)
    page = _templates().get_template("page.html")
    return page.render(
        version=__version__,
        results=results,
        progress=progress(results),
        told=statements(results),
        paragraphs=paragraphs(results),
        main=main.name if main else None,
        # Beyond so many arms, the longer tables are folded.
        few=len(results.arms) <= palette.MOST_FEATURED,
        looks=palette.looks(results),
        featured=palette.featured(results),
        signal=signal_table(results),
        cells={
            (arm.name, environment.name): score_of(results, arm, environment)
            for arm in results.arms
            for environment in results.environments
        },
        several_seeds=len(results.seeds) > 1,
        scores=figures.success_panels(results),
        main_comparisons=compared,
        other_comparisons=[c for c in results.comparisons if c not in compared],
        matrices=matrices(results),
        ratios=figures.ratio_panels(results),
        ratio_names=[arm.name for arm in figures.ratio_arms(results)],
        costs=figures.cost_panels(results),
        losses=figures.loss_panels(results),
        few_curves=figures.points_shown(results),
        rewards=figures.reward_panels(results),
        ends=figures.end_panels(results),
        end_names=figures.ENDS,
        transcript_places=_transcript_places(results),
        acted=acted.acted_rows(results),
        acted_title=acted.TITLE,
        acted_caption=acted.CAPTION,
        acted_head=acted.HEAD,
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
            wording.points,
            wording.points_range,
            wording.flops,
            wording.options,
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


def _transcript_places(results: Results) -> dict[tuple[str, str, str], list[int]]:
    """By arm, environment and kind, the numbers of the episodes that are shown, from 1."""
    places: dict[tuple[str, str, str], list[int]] = {}
    for place, one in enumerate(results.transcripts, start=1):
        places.setdefault((one.arm, one.environment, one.kind), []).append(place)
    return places


def critical_steps(example: Example, arm: str | None) -> list[int]:
    """The ids of the steps that an arm selected."""
    return [step.step_id for step in example.steps if arm and step.critical.get(arm)]


def judged(step: ExampleStep, arms: Sequence[str]) -> list[str]:
    """The arms, in the order of the run, that selected a step."""
    return [arm for arm in arms if step.critical.get(arm)]
