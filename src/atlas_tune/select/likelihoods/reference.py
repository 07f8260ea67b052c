"""Reference models that are tuned on a run's own trajectories, each blind to one fold of them.

Cross-fitting: tasks are dealt into folds, and the reference of a fold is tuned on all the others.
All runs of one task lie in one fold, else a reference would know a trajectory by its twin. Tasks
are dealt in the order of a hash, one to each fold in turn, so that folds differ by one task at
most and the same tasks give the same folds whatever the order of the file.

A reference is a full training (:func:`atlas_tune.tune.stage.tune_model`) on every agent step. Its
directory is named by the hash of all that decides its weights: a run that was killed goes on in
it, and a later one finds it done.
"""

from __future__ import annotations

import gc
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas_tune.agents.local_model import load_tokenizer, model_digest
from atlas_tune.errors import UsageError
from atlas_tune.llm.draining import refuse_if_stopping
from atlas_tune.progress import PLAIN_SECONDS, say
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.likelihoods.passages import passages_of
from atlas_tune.trajectory import Selection, Trajectory
from atlas_tune.trajectory.canonical import canonical_json
from atlas_tune.trajectory.tasks import TaskKey, task_key
from atlas_tune.tune.settings import TuneSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class References:
    """The folds of a run's trajectories and, for each, a model tuned on all the others."""

    def __init__(
        self,
        model: str,
        trajectories: Sequence[Trajectory],
        directory: Path,
        folds: int,
        settings: TuneSettings,
        seed: int,
    ) -> None:
        """Deal the tasks; nothing is tuned yet.

        Args:
            model: what every reference is tuned from.
            trajectories: all of the run.
            directory: gets one directory for each reference.
            folds: into how many parts the tasks are dealt.
            settings: how the references are tuned.
            seed: of the deal and of the tuning.

        Raises:
            UsageError: there are fewer tasks than folds.
        """
        self.model, self.directory = model, directory
        self.settings, self.seed = settings, seed
        self.folds = deal(trajectories, folds, seed)
        self._fold_of = {
            run.trajectory_id: place for place, fold in enumerate(self.folds) for run in fold
        }

    def fold_of(self, trajectory: Trajectory) -> int | None:
        """The fold of a trajectory; None where it was not among those that were dealt."""
        return self._fold_of.get(trajectory.trajectory_id)

    @property
    def identity(self) -> str:
        """A short hash of what decides the references besides the base model's weights."""
        return _digest(
            [self.settings.decisive(), self.seed, len(self.folds), sorted(self._fold_of)]
        )

    def taught(self, fold: int) -> list[Trajectory]:
        """What the reference of a fold is tuned on, in an order that no file decides."""
        others = [run for place, runs in enumerate(self.folds) if place != fold for run in runs]
        return sorted(others, key=lambda run: run.trajectory_id)

    def place_of(self, fold: int) -> Path:
        """The directory of a fold's reference; its name stands for all that decides the weights."""
        runs = [run.trajectory_id for run in self.taught(fold)]
        parts = [model_digest(self.model), self.settings.decisive(), self.seed, runs]
        return self.directory / _digest(parts)

    def tuned(self, fold: int) -> Path:
        """The directory of a fold's reference, which is tuned now unless that is done.

        Trajectories whose tokens cannot be told exactly are left out of the tuning.

        Raises:
            AtlasError: nothing is left to tune on, or the model cannot be found.
            Interrupted: the user asked to stop; the same command goes on from the last checkpoint.
        """
        from atlas_tune.tune.stage import tune_model

        place = self.place_of(fold)
        if _is_done(place):
            return place
        tokenizer = load_tokenizer(self.model)
        runs = [run for run in self.taught(fold) if _lengths(tokenizer, run)]
        title = f"reference {fold + 1} of {len(self.folds)}"
        say(f"  Tuning {title} on {len(runs)} runs of other tasks, once; it is kept on file.")
        figures = tune_model(
            self.model,
            runs,
            {
                run.trajectory_id: Selection(
                    run.trajectory_id, tuple(step.step_id for step in run.agent_steps), "all"
                )
                for run in runs
            },
            self.settings,
            place,
            self.seed,
            _telling(title),
        )
        if figures["too_long"]:
            say(
                f"  {title}: {len(figures['too_long'])} rows are longer than "
                f"{self.settings.max_tokens} tokens and were left out; raise tune.max_tokens."
            )
        gc.collect()  # models and optimisers hang in reference cycles
        return place

    def tuned_tokens(self, fold: int) -> int:
        """How many tokens the tuning of a fold's reference reads, every epoch counted."""
        from atlas_tune.tune.batches import shuffled

        tokenizer, most = load_tokenizer(self.model), self.settings.max_tokens
        runs = [
            [length for length in _lengths(tokenizer, run) if length <= most]
            for run in self.taught(fold)
        ]
        tokens = [sum(rows) for rows in runs if rows]
        if not tokens:
            return 0
        settings = self.settings
        plan = shuffled(len(tokens), settings.rows_per_step, settings.epochs, self.seed)
        return sum(tokens[run] for step in plan for run in step)


def deal(trajectories: Sequence[Trajectory], folds: int, seed: int) -> list[list[Trajectory]]:
    """The trajectories of each fold; runs of one task lie together, a repeated run counts once.

    Raises:
        UsageError: there are fewer tasks than folds.
    """
    by_task: dict[TaskKey, dict[str, Trajectory]] = defaultdict(dict)
    for run in trajectories:
        by_task[task_key(run)][run.trajectory_id] = run
    if len(by_task) < folds:
        raise UsageError(
            f"{len(by_task)} tasks cannot be dealt into {folds} folds: give more trajectories, or "
            "ask for fewer folds."
        )
    order = sorted(by_task, key=lambda key: _digest(["fold", seed, *key]))
    dealt: list[list[Trajectory]] = [[] for _ in range(folds)]
    for place, key in enumerate(order):
        dealt[place % folds] += by_task[key].values()
    return dealt


def _lengths(tokenizer: PreTrainedTokenizerBase, trajectory: Trajectory) -> list[int]:
    """Tokens of each training row of a trajectory; none where it cannot be masked exactly."""
    with suppress(CannotLabel):
        return [len(passage.ids) for passage in passages_of(tokenizer, trajectory)]
    return []


def _is_done(place: Path) -> bool:
    """Whether a training has come to its end there; training then would load the model first."""
    record = place / "training.json"
    if not record.is_file() or not any(place.glob("*.safetensors")):
        return False
    return json.loads(record.read_text())["figures"] is not None


def _telling(title: str) -> Callable[[int, int, float], None]:
    """Tells of steps now and then, in lines: a bar of the whole labelling is on the screen."""
    told_at = time.monotonic()

    def tell(step: int, of: int, loss: float) -> None:
        nonlocal told_at
        refuse_if_stopping()
        if time.monotonic() - told_at >= PLAIN_SECONDS:
            told_at = time.monotonic()
            say(f"  {title}: {step}/{of} steps, loss {loss:.3f}")

    return tell


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()[:16]
