"""What a run could not use: records, trajectories without labels, long rows, broken episodes."""

from __future__ import annotations

from collections.abc import Set

from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.manifest import Manifest
from atlas_tune.pipeline.stage import audit_stage, evaluate_stage, select_stage, tune_stage
from atlas_tune.recipe import Recipe
from atlas_tune.report.results import UNTUNED, Quarantined
from atlas_tune.trajectory.json_files import read_lines
from atlas_tune.trajectory.quarantine import refuse


def left_out(
    recipe: Recipe, layout: Layout, manifest: Manifest, current: Set[str]
) -> tuple[Quarantined, ...]:
    """Each with its reason.

    Args:
        recipe: says what is asked for.
        layout: says where the quarantine is.
        manifest: what the stages returned.
        current: the names of the stages whose results count.
    """
    found = [
        Quarantined(
            place=f"{bad['file']}:{bad['line']}" if bad["line"] else bad["file"],
            reason=bad["reason"],
        )
        for bad in (line.value for line in read_lines(layout.quarantine, refuse))
    ]
    models = [(arm, seed) for arm in recipe.arms for seed in recipe.seeds]
    for arm, seed in models:
        if (stage := select_stage(arm.chosen_with(seed).name)) in current:
            for missing in manifest.returned(stage)["unlabelled"]:
                place = f"{arm.name}, trajectory {missing['trajectory_id'][:12]}"
                found.append(Quarantined(place=place, reason=missing["reason"]))
        if (stage := tune_stage(arm.name, seed)) in current:
            figures = manifest.returned(stage)
            too_long = f"longer than {recipe.arm_tune(arm).max_tokens} tokens, so not trained"
            reasons = dict.fromkeys(figures["too_long"], too_long) | figures["refused"]
            for trajectory_id, reason in reasons.items():
                place = f"{arm.name}, trajectory {trajectory_id[:12]}"
                found.append(Quarantined(place=place, reason=reason))
    for stage in map(audit_stage, (arm.name for arm in recipe.audited())):
        for missing in manifest.returned(stage)["left_out"] if stage in current else ():
            found.append(Quarantined(place=f"{stage}, {missing['what']}", reason=missing["reason"]))
    evaluated = [(UNTUNED, None), *((arm.name, seed) for arm, seed in models)]
    for name, number in evaluated:
        for where in recipe.evaluate.environments:
            if (stage := evaluate_stage(name, number, where.place)) in current:
                # An evaluation that an earlier version of this code finished has told of none.
                for task, reason in manifest.returned(stage).get("errors", {}).items():
                    found.append(Quarantined(place=f"{stage}, {task}", reason=reason))
    return tuple(dict.fromkeys(found))
