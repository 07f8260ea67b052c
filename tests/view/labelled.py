"""Two runs, and a sidecar in which a judge and a scorer have labelled the first."""

from __future__ import annotations

from pathlib import Path

from atlas_tune.trajectory import Kind, LabelSource, StepLabel, Trajectory
from atlas_tune.trajectory.store import append_labels
from trajectory.runs import craft_run

RUN, OTHER = craft_run(4, task_id="one"), craft_run(10, task_id="two")
JUDGE, SCORER = LabelSource("oracle", "2", model="m"), LabelSource("surprisal")
JUDGED, SCORED = "oracle@2,m", "surprisal@1"
OWN = "ada@1"


def said(run: Trajectory, step_id: int, kind: Kind | None, source: LabelSource, **more):
    return StepLabel(run.trajectory_id, step_id, kind, source, created_at="then", **more)


def write_sidecar(path: Path) -> Path:
    kinds = {4: Kind.PLAN_CREATION, 5: Kind.NONE, 6: Kind.CRITICAL_ACTION, 7: Kind.NONE}
    append_labels(path, [said(RUN, step, kind, JUDGE, reason="so") for step, kind in kinds.items()])
    append_labels(path, [said(RUN, i, None, SCORER, score=i / 10) for i in kinds])
    return path
