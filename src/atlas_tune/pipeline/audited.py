"""The audits of a run that are done by now, as rows of the report."""

from __future__ import annotations

from collections.abc import Iterator, Set

from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.stage import audit_stage
from atlas_tune.recipe import Recipe
from atlas_tune.report.criticality import RECORD, has_control, load_criticality
from atlas_tune.report.fields import Interval
from atlas_tune.report.results import Started
from atlas_tune.select.auditing.criticality import Criticality
from atlas_tune.select.auditing.resampling import Figure


def audited(recipe: Recipe, layout: Layout, current: Set[str]) -> tuple[Started, ...]:
    """A row for each arm and environment whose audit is current, in the order of the recipe.

    Raises:
        AtlasError: a file of an audit is not what the audit wrote.
    """
    return tuple(
        row
        for arm in recipe.audited()
        if audit_stage(arm.name) in current
        for path in sorted(layout.audits(arm.name).glob(f"*/{RECORD}"))
        for row in started_rows(load_criticality(path)[1])
    )


def started_rows(found: Criticality) -> Iterator[Started]:
    """The rows of Table 6 in a measurement: one for each selection, none where nobody acted."""
    for one in found.selections:
        if one.started is None or found.policy is None:
            continue
        success = one.started.success
        before, after, gain = (f.value for f in (success.before, success.after, success.gain))
        if before is None or after is None or gain is None:
            continue
        control = has_control(one)
        yield Started(
            selection=one.name,
            environment=", ".join(found.environments),
            policy=found.policy.name,
            runs=found.policy.runs,
            steps=one.started.steps,
            from_start=None if found.baseline is None else found.baseline.success.value,
            before=before,
            after=after,
            gain=gain,
            gain_interval=_interval(success.gain),
            after_random=success.control_after.value if control else None,
            after_difference=success.after_difference.value if control else None,
            after_interval=_interval(success.after_difference) if control else None,
            matched_random=success.control_gain.value if control else None,
            difference=success.gain_difference.value if control else None,
            interval=_interval(success.gain_difference) if control else None,
        )


def _interval(figure: Figure) -> Interval | None:
    return None if figure.low is None or figure.high is None else (figure.low, figure.high)
