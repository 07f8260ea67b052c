"""``atlas-tune run``: collect, select, tune, evaluate, report, skipping what is done."""

from __future__ import annotations

import gc
import shutil
import time
from pathlib import Path

from atlas_tune.errors import AtlasError
from atlas_tune.pipeline.experiment import EVERYTHING, Experiment, ModelStages, Only
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.manifest import Manifest, State
from atlas_tune.pipeline.provenance import machine
from atlas_tune.pipeline.results import build_results
from atlas_tune.pipeline.stage import DATA, Stage
from atlas_tune.progress import say
from atlas_tune.recipe import Recipe
from atlas_tune.report import write_report
from atlas_tune.sole_writer import sole_writer


def run_recipe(
    recipe: Recipe, recipe_path: Path, directory: Path, command: str, only: Only = EVERYTHING
) -> Path:
    """Run a recipe from where it stands to its report; returns the path of the report.

    With ``only`` a part of it runs, and the report is about what is done by then.

    Raises:
        AtlasError: a stage cannot go on; what is done stays done. Or another process runs in the
            same directory.
    """
    # What is wrong with the recipe is told before anything is made.
    manifest = Manifest(directory, {"command": command, "machine": machine()})
    experiment = Experiment(recipe, Layout(directory), manifest)
    directory.mkdir(parents=True, exist_ok=True)
    with sole_writer(directory):
        return _run(recipe, recipe_path, experiment, only)


def _run(recipe: Recipe, recipe_path: Path, experiment: Experiment, only: Only) -> Path:
    layout, manifest = experiment.layout, experiment.manifest
    if recipe_path.resolve() != layout.recipe.resolve():
        shutil.copyfile(recipe_path, layout.recipe)
    for stage in experiment.preparing(only):
        do(stage, manifest)
    for model in experiment.models(only):
        _do_model(model, manifest, keep=recipe.keep_weights)
    for stage in experiment.audits(only):
        do(stage, manifest)
    return write_report(build_results(experiment), layout.report)


def report_recipe(recipe: Recipe, directory: Path) -> Path:
    """Write the report on what a recipe has done by now, and run nothing; returns its path.

    Another process may be running the recipe meanwhile.

    Raises:
        AtlasError: nothing was done in the directory yet.
    """
    manifest = Manifest(directory)
    layout = Layout(directory)
    if not (manifest.path.is_file() and manifest.finished(DATA)):
        raise AtlasError(f"Nothing was done in {directory} yet: run the recipe first.")
    return write_report(build_results(Experiment(recipe, layout, manifest)), layout.report)


def do(stage: Stage, manifest: Manifest) -> None:
    """Do a stage unless it is done, and tell."""
    started = time.monotonic()
    if manifest.do(stage):
        gc.collect()  # models and optimisers hang in reference cycles
        say(f"✓ {stage.name} ({time.monotonic() - started:.0f} s)")
    else:
        say(f"✓ {stage.name} (done before)")
    missing = manifest.returned(stage.name).get("unlabelled")
    if missing:
        say(f"  {len(missing)} trajectories could not be labelled; the next run tries again.")
        say(f"  The first: {missing[0]['reason']}")
        manifest.reopen(stage.name)


def _do_model(model: ModelStages, manifest: Manifest, keep: bool) -> None:
    """Make a model and let it act everywhere; its weights go where they are not to be kept."""
    if model.tuning is None:
        for stage in model.acting:
            do(stage, manifest)
        return
    name = model.tuning.name
    if weights_missed(model, manifest):
        say(f"  {name}: its weights were removed, and are made again.")
        manifest.forget(name)
    do(model.tuning, manifest)
    for stage in model.acting:
        do(stage, manifest)
    if not keep and not manifest.was_thinned(name):
        manifest.thin(model.tuning, "*.safetensors")


def weights_missed(model: ModelStages, manifest: Manifest) -> bool:
    """Whether a model has to act whose weights were removed."""
    return (
        model.tuning is not None
        and manifest.was_thinned(model.tuning.name)
        and manifest.state(model.tuning) is State.DONE
        and any(manifest.state(stage) is not State.DONE for stage in model.acting)
    )
