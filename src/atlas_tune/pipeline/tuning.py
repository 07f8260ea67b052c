"""The tune stages: per arm and seed, the base model tuned on the arm's steps.

On several devices the work is done by torchrun's processes, each of which runs this module with
the path of a job.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atlas_tune.agents.local_model import model_digest
from atlas_tune.errors import AtlasError
from atlas_tune.pipeline.layout import Layout
from atlas_tune.pipeline.stage import DATA, Stage, select_stage, tune_stage
from atlas_tune.progress import ticking
from atlas_tune.recipe import ArmSettings, Recipe
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.store import read_labels, read_selections, read_trajectories
from atlas_tune.tune.settings import TuneSettings


def tuning_stage(
    recipe: Recipe,
    layout: Layout,
    arm: ArmSettings,
    seed: int,
    base: Callable[[], tuple[str, str]],
    trajectories: Callable[[], Sequence[Trajectory]],
) -> Stage:
    """Tuning the base model on an arm's steps with one seed.

    Args:
        recipe: says how.
        layout: says where.
        arm: whose steps.
        seed: of the order of rows and of dropout.
        base: gives the directory of the base model and the digest of its weights.
        trajectories: gives all of the run.
    """
    settings = recipe.arm_tune(arm)
    chosen = arm.chosen_with(seed).name
    directory = layout.model(arm.name, seed)

    job = _Job(arm.name, chosen, seed)

    def run() -> dict[str, Any]:
        if recipe.processes > 1:
            figures = _by_torchrun(recipe.processes, layout, job, base()[0], settings)
        else:
            figures = _tune(layout, job, base()[0], settings, trajectories())
        # Known without the weights, which may be removed once they are evaluated.
        return {**figures, "digest": model_digest(str(directory))}

    return Stage(
        tune_stage(arm.name, seed),
        lambda: {"model": base()[1], "tune": settings.decisive(), "seed": seed},
        run,
        inputs=(layout.trajectories, layout.selection(chosen)),
        outputs=(directory,),
        after=(DATA, select_stage(chosen)),
        like=(f"tune {arm.name}", "tune"),
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """One model to be made."""

    arm: str
    chosen: str
    """The name under which its steps were chosen."""
    seed: int


def _tune(
    layout: Layout,
    job: _Job,
    base: str,
    settings: TuneSettings,
    trajectories: Sequence[Trajectory],
) -> dict[str, Any]:
    from atlas_tune.tune.stage import tune_model

    with ticking(f"tune {job.arm}, seed {job.seed}") as tick:
        return tune_model(
            base,
            trajectories,
            read_selections(layout.selection(job.chosen)),
            settings,
            layout.model(job.arm, job.seed),
            job.seed,
            lambda step, of, loss: tick(step, of, f"steps, loss {loss:.3f}"),
            read_labels(layout.labels(job.chosen)),
        )


def _by_torchrun(
    processes: int, layout: Layout, job: _Job, base: str, settings: TuneSettings
) -> dict[str, Any]:
    directory = layout.model(job.arm, job.seed)
    directory.mkdir(parents=True, exist_ok=True)
    # Beside the model's directory: what lies in it is the stage's output.
    asked, told = (directory.with_name(f"{job.seed}.{name}.json") for name in ("job", "figures"))
    asked.write_text(
        json.dumps(
            {
                "directory": str(layout.directory.absolute()),
                "job": asdict(job),
                "base": base,
                "settings": settings.model_dump(),
                "figures": str(told.absolute()),
            }
        )
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", "atlas_tune.pipeline.tuning", str(asked)]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise AtlasError(
            f"torchrun ended with exit code {done.returncode} while it tuned {job.arm}, seed "
            f"{job.seed}; what it said stands above. Run the recipe again to go on from the last "
            "checkpoint."
        )
    figures: dict[str, Any] = json.loads(told.read_text())
    asked.unlink()
    told.unlink()
    return figures


def _process(path: Path) -> None:
    """One of torchrun's processes."""
    asked = json.loads(path.read_text())
    layout = Layout(Path(asked["directory"]))
    figures = _tune(
        layout,
        _Job(**asked["job"]),
        asked["base"],
        TuneSettings.model_validate(asked["settings"]),
        list(read_trajectories(layout.trajectories)),
    )
    if os.environ.get("RANK", "0") == "0":
        Path(asked["figures"]).write_text(json.dumps(figures))


if __name__ == "__main__":
    _process(Path(sys.argv[1]))
