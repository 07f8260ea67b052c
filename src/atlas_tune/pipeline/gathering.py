"""The data stage: the training trajectories, collected from experts and imported from files."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from atlas_tune.agents.collect import collect_expert_runs, first_tasks
from atlas_tune.environments import make_environment
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import AtlasError
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.stage import DATA, Stage
from atlas_tune.progress import say, ticking
from atlas_tune.recipe import Collect, Import, Recipe, Source
from atlas_tune.trajectory import StepLabel, Trajectory, stamped
from atlas_tune.trajectory.filters import Wanted
from atlas_tune.trajectory.importing import NothingImported, import_files
from atlas_tune.trajectory.json_files import read_lines
from atlas_tune.trajectory.jsonl import write_jsonl
from atlas_tune.trajectory.labels import dump_label
from atlas_tune.trajectory.quarantine import Rejected, refuse, write_quarantine
from atlas_tune.trajectory.sidecars import labels_beside
from atlas_tune.trajectory.store import read_labels, read_trajectories, write_trajectories


def data_stage(recipe: Recipe, layout: Layout) -> Stage:
    """Collecting and importing the training trajectories of a recipe."""
    files = [source.path for source in recipe.data if isinstance(source, Import)]
    return Stage(
        DATA,
        lambda: {"sources": [source.model_dump(mode="json") for source in recipe.data]},
        lambda: _gather(recipe, layout),
        inputs=(*files, *filter(Path.is_file, map(labels_beside, files))),
        outputs=(layout.trajectories, layout.quarantine, layout.imported_labels),
    )


def check_data(recipe: Recipe) -> None:
    """See to it that every source can be had, before the first hour of work.

    Raises:
        AtlasError: a file is not there, or an environment has no such tasks.
    """
    for source in recipe.data:
        if isinstance(source, Collect):
            env = make_environment(source.collect)
            first_tasks(env, source.split, source.tasks, source.options)
        elif "$" in source.path.parts[0]:
            raise AtlasError(
                f"The recipe imports {source.path}, and that variable is not set: "
                f"export {source.path.parts[0].strip('${}')}=… first."
            )
        elif not source.path.exists():
            raise AtlasError(f"The recipe imports {source.path}, which does not exist.")


def _gather(recipe: Recipe, layout: Layout) -> dict[str, Any]:
    gathered: dict[str, Trajectory] = {}
    labels: list[StepLabel] = []
    rejected: list[Rejected] = []
    seconds: dict[str, float] = {}
    repeated = 0
    for source in recipe.data:
        if isinstance(source, Collect):
            started = time.monotonic()
            found, failed = _collect(source)
            rejected += failed
            spent = seconds.get(source.collect, 0.0) + time.monotonic() - started
            seconds[source.collect] = spent
        else:
            found, said, bad = _import(source, layout)
            labels += said
            rejected += bad
        before = len(gathered)
        gathered.update((t.trajectory_id, t) for t in found)
        repeated += len(found) - (len(gathered) - before)
    if repeated:
        # Labels and selections know a run by its id.
        say(f"  {repeated} of the recipe's runs are the same as others, and are used once.")
    if not gathered:
        reasons = "; ".join(str(bad) for bad in rejected[:3])
        raise AtlasError(f"The recipe's data give no trajectory: {reasons}.")
    write_trajectories(layout.trajectories, gathered.values())
    write_quarantine(layout.quarantine, rejected)
    write_jsonl(layout.imported_labels, map(dump_label, stamped(labels)))
    return {"seconds": seconds, "repeated": repeated}


def _import(
    source: Import, layout: Layout
) -> tuple[list[Trajectory], list[StepLabel], list[Rejected]]:
    """The trajectories of files, the labels that came with them, and what is bad in them."""
    with tempfile.TemporaryDirectory(dir=layout.directory) as folder:
        store = Path(folder) / "runs.jsonl"
        try:
            import_files([source.path], store, source.format)
        except NothingImported as error:
            return [], [], error.report.first_bad
        labels, bad = labels_beside(store), Path(f"{store}.quarantine.jsonl")
        runs = _wanted(source, list(read_trajectories(store)))
        kept = {run.trajectory_id for run in runs}
        said = list(read_labels(labels)) if labels.is_file() else []
        return (
            runs,
            [label for label in said if label.trajectory_id in kept],
            [Rejected(**line.value) for line in read_lines(bad, refuse)] if bad.is_file() else [],
        )


def _wanted(source: Source, runs: list[Trajectory]) -> list[Trajectory]:
    """The runs that meet the source's conditions, or a sample of them, in their order.

    Raises:
        AtlasError: there are runs, and none is left.
    """
    conditions = Wanted(
        success=source.success,
        min_reward=source.min_reward,
        min_steps=source.min_steps,
        max_steps=source.max_steps,
    )
    refusals = Counter(why for run in runs if (why := conditions.refusal(run)) is not None)
    if runs and refusals.total() == len(runs):
        name = source.collect if isinstance(source, Collect) else source.path
        reasons = ", ".join(f"{count} {why}" for why, count in refusals.most_common())
        raise AtlasError(
            f"None of the {len(runs)} runs of {name} meets the recipe's conditions ({reasons}): "
            "loosen them, or leave the source out."
        )
    runs = [run for run in runs if conditions.refusal(run) is None]
    if source.sample is None:
        return runs

    def lot(run: Trajectory) -> bytes:
        return hashlib.sha256(f"{source.seed} {run.trajectory_id}".encode()).digest()

    drawn = {run.trajectory_id for run in sorted(runs, key=lot)[: source.sample]}
    return [run for run in runs if run.trajectory_id in drawn]


def _collect(source: Collect) -> tuple[list[Trajectory], list[Rejected]]:
    env = make_environment(source.collect)
    tasks = first_tasks(env, source.split, source.tasks, source.options)
    with ticking(f"collect {source.collect}") as tick:
        collected = collect_expert_runs(
            env,
            tasks,
            seed=source.seed,
            habits=Habits(**source.habits.model_dump()),
            on_run=lambda done, of: tick(done, of, "runs"),
        )
    failed = [
        Rejected(task, 0, 0, f"no expert run: {why}") for task, why in collected.failures.items()
    ]
    return _wanted(source, list(collected.trajectories)), failed
