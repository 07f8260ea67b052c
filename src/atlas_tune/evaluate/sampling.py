"""Rejection sampling: a policy acts several times in each task, and its good runs are kept.

As in rejection-sampling fine-tuning (Yuan et al. 2023, arXiv 2308.01825, section 3.2) a run is kept
if its outcome is good, and of runs of a task that say the same only the first.

Sample k of all tasks is one evaluation (:mod:`.rollouts`) with a seed of its own, in a file of its
own: ``<directory>/sample-000.jsonl`` and so on. All runs are on file there, the good and the bad,
so a killed run goes on, and another bar or more samples repeat no episode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from atlas_tune import __version__
from atlas_tune.agents.making import PolicyMaker
from atlas_tune.agents.streams import hashed
from atlas_tune.errors import UsageError
from atlas_tune.evaluate.rollouts import Rollout, Standing, evaluate, read_rollouts
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.messages import to_messages

if TYPE_CHECKING:
    from atlas_tune.agents.opening import Opening
    from atlas_tune.agents.policy import Policy
    from atlas_tune.environments.base import TextEnv

_SEEDS = 2**31

Fate = Literal["kept", "surplus", "duplicate", "low reward", "step limit", "error"]
FATES: tuple[Fate, ...] = get_args(Fate)


@dataclass(frozen=True, slots=True)
class Bar:
    """Which runs are kept.

    Raises:
        UsageError: ``keep`` is below 1, or ``min_reward`` is not a number.
    """

    min_reward: float | None = None
    """Runs with this return or more; None: those that reached the goal."""
    keep: int | None = None
    """At most so many a task; the first ones. A task that has them is sampled no further."""

    def __post_init__(self) -> None:
        if self.keep is not None and self.keep < 1:
            raise UsageError(f"keep is {self.keep}: keep at least one run of a task.")
        if self.min_reward is not None and self.min_reward != self.min_reward:
            raise UsageError("min_reward is not a number: give one, such as 0.5.")

    def takes(self, rollout: Rollout) -> bool:
        """Whether a run is good enough; one that broke off never is."""
        if rollout.error is not None or rollout.trajectory is None:
            return False
        return rollout.success if self.min_reward is None else rollout.reward >= self.min_reward


@dataclass(frozen=True, slots=True)
class Acting:
    """A policy, and how it samples.

    Raises:
        UsageError: the temperature is below 0, or it is 0, where all samples are the same, and
            several are asked for.
    """

    name: str
    """Of the model, for the agent of the trajectories."""
    policies: PolicyMaker
    settings: Mapping[str, Any]
    """What decides its replies besides model, temperature and seed, as JSON values."""
    temperature: float
    seed: int
    samples: int
    """How often it acts in each task."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UsageError(f"A temperature is 0 (greedy) or above, not {self.temperature}.")
        if self.samples > 1 and self.temperature == 0:
            raise UsageError(
                f"At temperature 0 all {self.samples} samples of a task would be the same: raise "
                "the temperature, or take one sample."
            )

    def seed_of(self, sample: int) -> int:
        """The seed of a sample, 31 bits: other ones for every seed and sample."""
        return hashed("sample", self.seed, sample) % _SEEDS

    def agent_of(self, sample: int) -> dict[str, Any]:
        """The agent of a sample's trajectories: who it was and how it drew, as ATIF has it."""
        return {
            "name": self.name,
            "version": __version__,
            "model_name": self.policies.identity,
            "extra": {
                "temperature": self.temperature,
                "seed": self.seed,
                "sample": sample,
                **self.settings,
            },
        }


@dataclass(frozen=True, slots=True)
class Sampled:
    """What became of all samples."""

    trajectories: tuple[Trajectory, ...]
    """Those that were kept, by task and then by sample."""
    fates: dict[Fate, int]
    """How many samples met each fate; the sum is the number of episodes.

    *surplus* are good runs beyond ``keep``, from an earlier and more generous collection; *step
    limit* are runs that used all their turns, *low reward* the others that are not good enough."""
    errors: dict[str, str]
    """Why runs broke off, by ``<task> (sample k)``."""
    tasks_kept: int
    """Tasks with at least one run that was kept."""

    @property
    def episodes(self) -> int:
        """How many episodes were played, now or before."""
        return sum(self.fates.values())

    @property
    def acceptance_rate(self) -> float:
        """The share of the episodes that were good: kept, surplus or duplicate."""
        good = self.fates["kept"] + self.fates["surplus"] + self.fates["duplicate"]
        return good / self.episodes if self.episodes else 0.0


def sample_runs(
    make_env: Callable[[], TextEnv],
    task_ids: Sequence[str],
    acting: Acting,
    bar: Bar,
    directory: Path,
    *,
    max_steps: int,
    batch_size: int,
    opening: Opening | None = None,
    retry_errors: bool = False,
    on_standing: Callable[[int, Standing], None] = lambda sample, standing: None,
) -> Sampled:
    """Let a policy act ``acting.samples`` times in each task, and keep what passes the bar.

    Args:
        make_env: makes one environment.
        task_ids: the tasks.
        acting: the policy, and how it samples.
        bar: which runs are kept.
        directory: holds the samples of this and earlier calls; what is there is not played again.
        max_steps: the step limit of an episode.
        batch_size: episodes that run at once. A kill costs at most one batch.
        opening: told instead of the environment's own instruction.
        retry_errors: play those episodes again that broke off.
        on_standing: called after each turn with the sample's number and how far it has come.

    Raises:
        AtlasError: the directory holds samples of another policy or other settings, or the policy
            cannot answer.
    """
    good: dict[str, dict[str, Trajectory]] = {task: {} for task in task_ids}
    fates: Counter[Fate] = Counter(dict.fromkeys(FATES, 0))
    errors: dict[str, str] = {}
    for sample in range(acting.samples):
        path = directory / f"sample-{sample:03}.jsonl"
        on_file = {rollout.task_id: rollout for rollout in read_rollouts(path)}
        open_tasks = [task for task in task_ids if bar.keep is None or len(good[task]) < bar.keep]
        # Only what is not on file: batches that were finished leave whole batches to do, so that a
        # killed run goes on in the batches that it would have had.
        left = [
            task
            for task in open_tasks
            if task not in on_file or (retry_errors and on_file[task].error is not None)
        ]

        def policy(sample: int = sample) -> Policy:
            return acting.policies(acting.seed_of(sample), acting.temperature)

        def show(standing: Standing, sample: int = sample) -> None:
            on_standing(sample, standing)

        played = evaluate(
            make_env,
            left,
            policy,
            path,
            max_steps=max_steps,
            batch_size=batch_size,
            agent=acting.agent_of(sample),
            model={
                "model": acting.policies.identity,
                "temperature": acting.temperature,
                "seed": acting.seed,
                "sample": sample,
                **acting.settings,
            },
            opening=opening,
            retry_errors=retry_errors,
            on_standing=show,
        )
        on_file.update((rollout.task_id, rollout) for rollout in played)
        for task in task_ids:
            if task not in on_file:
                continue
            rollout = on_file[task]
            fate = _fate(rollout, bar, good[task], max_steps)
            fates[fate] += 1
            if fate == "kept" and rollout.trajectory is not None:
                good[task][_said(rollout.trajectory)] = rollout.trajectory
            if rollout.error is not None:
                errors[f"{task} (sample {sample})"] = rollout.error
    kept = tuple(run for runs in good.values() for run in runs.values())
    return Sampled(kept, dict(fates), errors, sum(bool(runs) for runs in good.values()))


def _fate(rollout: Rollout, bar: Bar, good: Mapping[str, Trajectory], max_steps: int) -> Fate:
    """What becomes of a run, given the runs of its task that were kept before it."""
    if rollout.error is not None or rollout.trajectory is None:
        return "error"
    if not bar.takes(rollout):
        return "step limit" if rollout.turns >= max_steps else "low reward"
    if _said(rollout.trajectory) in good:
        return "duplicate"
    return "surplus" if bar.keep is not None and len(good) >= bar.keep else "kept"


def _said(trajectory: Trajectory) -> str:
    """What tells a run from another one of its task: the whole conversation."""
    return repr(to_messages(trajectory).messages)
