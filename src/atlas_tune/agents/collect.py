"""Collecting: runs of a scripted expert, as trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atlas_tune import __version__
from atlas_tune.agents.rollout import run_expert
from atlas_tune.environments.base import ExpertFailed, TextEnv
from atlas_tune.environments.habits import Habits
from atlas_tune.errors import UsageError
from atlas_tune.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Collected:
    """The successful runs, and per failed task why it has none."""

    trajectories: tuple[Trajectory, ...]
    failures: dict[str, str]


def collect_expert_runs(
    env: TextEnv,
    task_ids: Sequence[str],
    *,
    seed: int,
    habits: Habits,
    on_run: Callable[[int, int], None] = lambda done, of: None,
) -> Collected:
    """One expert run per task; only successful runs are kept, as experts' data are.

    Args:
        env: the environment.
        task_ids: the tasks.
        seed: of the expert's habits; the same seed gives the same runs on any machine.
        habits: how often the expert strays.
        on_run: called after each run with how many are done, of how many.
    """
    trajectories: list[Trajectory] = []
    failures: dict[str, str] = {}
    agent = {"name": f"{env.name}-expert", "version": __version__}
    for done, task_id in enumerate(task_ids, start=1):
        try:
            episode = run_expert(env, task_id, lambda: env.expert(seed, habits), env.max_steps)
        except ExpertFailed as error:
            failures[task_id] = str(error)
        else:
            if episode.success:
                trajectories.append(episode.trajectory(agent))
            else:
                failures[task_id] = f"the expert did not reach the goal in {env.max_steps} steps"
        on_run(done, len(task_ids))
    return Collected(tuple(trajectories), failures)


def first_tasks(env: TextEnv, split: str, count: int, options: dict[str, object]) -> Sequence[str]:
    """The first tasks of a split.

    Raises:
        UsageError: the split holds fewer.
    """
    tasks = env.tasks(split, **options)
    if len(tasks) < count:
        narrowed = f" with options {options}" if options else ""
        raise UsageError(
            f"{env.name} has {len(tasks)} tasks in split '{split}'{narrowed}, and {count} were "
            "asked for: ask for fewer, or widen the options."
        )
    return tasks[:count]
