"""Base skills kept: two models' answers to the same questions, compared one by one.

The questions and their scores are lm-evaluation-harness's (:mod:`.skills_harness`). Both models
answer each question, so the comparison is paired: what both get right, or both wrong, says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from atlas_tune.errors import AtlasError
from atlas_tune.evaluate.statistics.bootstrap import bootstrap_difference
from atlas_tune.evaluate.statistics.paired import Verdict, exact_mcnemar, sign_flips

Test = Literal["exact McNemar", "sign flips"]

LEVEL = 0.05
"""Below this p-value the models are told apart."""


@dataclass(frozen=True, slots=True)
class SkillScores:
    """What one model scores on one task, question by question."""

    task: str
    metric: str
    higher_is_better: bool
    values: dict[str, float]
    """By question: its number in the task and the hash of its content."""


@dataclass(frozen=True, slots=True)
class SkillComparison:
    """Two models on one task."""

    task: str
    metric: str
    questions: int
    before: float
    """The mean score of the model before tuning."""
    after: float
    difference: float
    """After minus before, in the metric's own direction."""
    interval: tuple[float, float] | None
    """Of the difference: 95%, a bootstrap over questions. None where all questions differ by the
    same, because a bootstrap would then claim to know the difference exactly."""
    test: Test
    p_value: float
    verdict: Verdict
    """Whether the tuned model is better or worse than the one before, at 5%."""


def scores_of(
    task: str, samples: Sequence[Mapping[str, Any]], higher_is_better: Mapping[str, bool]
) -> SkillScores:
    """One task's scores from the harness's samples.

    The metric is the first of the task's that gives each question a number; where answers are
    filtered in several ways, the first filter.

    Args:
        task: its name.
        samples: as the harness logs them.
        higher_is_better: by metric, as the harness tells it.

    Raises:
        AtlasError: no metric of the task gives each question a number (BLEU and perplexity are
            computed over all of them), or there is no question.
    """
    if not samples:
        raise AtlasError(f"The task '{task}' holds no question: check its data and --limit.")
    first = [one for one in samples if one.get("filter") == samples[0].get("filter")]
    for metric in samples[0].get("metrics", ()):
        if all(isinstance(one.get(metric), int | float) for one in first):
            values = {
                f"{one['doc_id']}:{one['doc_hash'][:16]}": float(one[metric]) for one in first
            }
            return SkillScores(task, metric, bool(higher_is_better.get(metric, True)), values)
    raise AtlasError(
        f"The task '{task}' has no metric with a number for each question "
        f"({', '.join(samples[0].get('metrics', ())) or 'none at all'}), so the models cannot be "
        "compared question by question: choose a task with accuracy, exact match or F1."
    )


def compare_skills(before: SkillScores, after: SkillScores) -> SkillComparison:
    """One task's comparison, with one verdict.

    Where every score is 0 or 1, the exact McNemar test decides (see :func:`exact_mcnemar`); else
    :func:`sign_flips` does. The bootstrap's interval decides nothing: over few questions it leaves
    zero out far too often.

    Raises:
        AtlasError: the models were not asked the same questions.
    """
    if before.metric != after.metric or before.values.keys() != after.values.keys():
        raise AtlasError(
            f"The two runs of the task '{before.task}' did not ask the same questions: run both "
            "again with the same task file and the same --limit."
        )
    ids = sorted(before.values)
    differences = [after.values[one] - before.values[one] for one in ids]
    interval = None if np.ptp(differences) < 1e-12 else bootstrap_difference(differences)
    sign = 1 if before.higher_is_better else -1
    is_accuracy = {*before.values.values(), *after.values.values()} <= {0.0, 1.0}
    if is_accuracy:
        paired = exact_mcnemar(
            {one: sign * after.values[one] for one in ids},
            {one: sign * before.values[one] for one in ids},
        )
        p_value, verdict = paired.p_value, paired.verdict
    else:
        p_value = sign_flips(differences)
        verdict = _verdict(sign * sum(differences), p_value)
    return SkillComparison(
        task=before.task,
        metric=before.metric,
        questions=len(ids),
        before=sum(before.values.values()) / len(ids),
        after=sum(after.values.values()) / len(ids),
        difference=sum(differences) / len(ids),
        interval=interval,
        test="exact McNemar" if is_accuracy else "sign flips",
        p_value=p_value,
        verdict=verdict,
    )


def _verdict(gained: float, p_value: float) -> Verdict:
    if p_value >= LEVEL:
        return "cannot tell"
    return "better" if gained > 0 else "worse"
