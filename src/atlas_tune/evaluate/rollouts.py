"""Rollouts on file: one line per task, appended as batches finish, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas_tune.agents.policy import Policy
from atlas_tune.agents.rollout import PREFILL, Episode, in_batches
from atlas_tune.agents.style import REACT, Style
from atlas_tune.errors import AtlasError
from atlas_tune.sole_writer import sole_writer
from atlas_tune.trajectory.jsonl import append_jsonl, cut_torn_line, write_jsonl
from atlas_tune.trajectory.model import InvalidTrajectory, Step, Trajectory, dump_trajectory
from atlas_tune.trajectory.parse import parse_trajectory
from atlas_tune.trajectory.quarantine import refuse
from atlas_tune.trajectory.store import read_records

if TYPE_CHECKING:
    from atlas_tune.agents.opening import Opening
    from atlas_tune.environments.base import TextEnv


@dataclass(frozen=True, slots=True)
class Rollout:
    """What a policy did on one task."""

    environment: str
    task_id: str
    reward: float
    """The return; 0 where the run broke off."""
    success: bool
    turns: int
    invalid_turns: int
    """Replies without an action that the environment could take."""
    rewards: tuple[float, ...]
    """The reward of each turn."""
    trajectory: Trajectory | None
    """None where the run broke off before the agent acted."""
    error: str | None = None
    """Why the run broke off, if it did: the environment failed twice, or the conversation outgrew
    the model. It counts as a failure of the model, and is told."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The agent's steps; none where the run broke off before the agent acted."""
        return () if self.trajectory is None else self.trajectory.agent_steps


@dataclass(frozen=True, slots=True)
class Standing:
    """How far an evaluation has come."""

    ended: int
    """Tasks that have ended, those on file included."""
    of: int
    solved: int
    """Successes among them."""
    errors: int
    """Runs among them that broke off."""
    turn: int
    """Turns of the longest episode that is running."""

    def __str__(self) -> str:
        errors = f", {self.errors} broken off" if self.errors else ""
        share = f" ({self.solved / self.ended:.0%})" if self.ended else ""
        return f"tasks ended, {self.solved} solved{share}{errors}, turn {self.turn}"


def rollout_of(episode: Episode, agent: dict[str, Any]) -> Rollout:
    """The rollout of a finished episode."""
    return Rollout(
        environment=episode.env.name,
        task_id=episode.task_id,
        reward=episode.reward,
        success=episode.success,
        turns=len(episode.turns),
        invalid_turns=episode.invalid,
        rewards=tuple(reward for _, _, reward in episode.turns),
        trajectory=episode.trajectory(agent) if episode.turns else None,
        error=episode.error,
    )


def dump_rollout(rollout: Rollout) -> dict[str, Any]:
    """The JSON object of a rollout."""
    return {
        "environment": rollout.environment,
        "task_id": rollout.task_id,
        "reward": rollout.reward,
        "success": rollout.success,
        "turns": rollout.turns,
        "invalid_turns": rollout.invalid_turns,
        "rewards": list(rollout.rewards),
        "error": rollout.error,
        "trajectory": rollout.trajectory and dump_trajectory(rollout.trajectory),
    }


def parse_rollout(record: Any) -> Rollout:
    """The rollout of a JSON object.

    Raises:
        InvalidTrajectory: the object is not a rollout.
    """
    try:
        fields = dict(record)
        found = fields.pop("trajectory")
        trajectory = None if found is None else parse_trajectory(found)
        rewards = tuple(fields.pop("rewards"))
        return Rollout(trajectory=trajectory, rewards=rewards, **fields)
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidTrajectory(f"not a rollout: {error}") from error


def read_rollouts(path: Path) -> list[Rollout]:
    """The rollouts of a file, in order; half a line left by a kill is cut off first.

    Raises:
        BadRecord: a line is not a rollout.
    """
    if not path.is_file():
        return []
    cut_torn_line(path)
    return list(read_records(path, parse_rollout, refuse))


def evaluate(
    make_env: Callable[[], TextEnv],
    task_ids: Iterable[str],
    policy: Callable[[], Policy],
    path: Path,
    *,
    max_steps: int,
    batch_size: int,
    agent: dict[str, Any],
    model: Mapping[str, Any],
    style: Style = REACT,
    opening: Opening | None = None,
    loop_limit: int | None = None,
    retry_errors: bool = False,
    on_turn: Callable[[int, list[Episode]], None] = lambda done, episodes: None,
    on_standing: Callable[[Standing], None] = lambda standing: None,
) -> list[Rollout]:
    """Run a policy on tasks and keep each result; what the file already holds is not run again.

    Tasks run in fixed batches, and a batch is appended when it is finished. A batch that a kill
    left incomplete runs again as a whole: in low precision the arithmetic of a reply depends a
    little on the batch it is computed in, so that a resumed evaluation gives the same result as
    an uninterrupted one only if the batches are the same.

    A run that breaks off (:mod:`atlas_tune.agents.surviving`) is kept with its ``error``.

    Args:
        make_env: makes one environment.
        task_ids: the tasks, in order.
        policy: makes the policy; only called if there is something to run.
        path: the file of rollouts.
        max_steps: the step limit of an episode.
        batch_size: episodes that run at once.
        agent: name, version and model, as they go into the trajectories.
        model: identifies the model and how it answers, as JSON values. With the limits, the prompt
            and the environment it is kept beside the file, and rollouts of another one are not
            mixed in.
        style: how the agent acts.
        opening: told instead of the environment's own instruction.
        loop_limit: an episode ends after so many turns in a row that are the same, in word and in
            answer; None lets it go on to the step limit.
        retry_errors: run those tasks again whose runs on file broke off; each result takes the
            place of the old one.
        on_turn: called after each turn with the tasks of the batches before and the running
            episodes.
        on_standing: called after each turn with how far the whole has come.

    Raises:
        AtlasError: the file holds rollouts of another or of an unknown model, limit or prompt;
            another process writes it; or what :class:`atlas_tune.agents.surviving.Surviving`
            cannot survive.
    """
    # Here and not above: what only reads rollouts needs no policy.
    from atlas_tune.agents.surviving import Surviving

    task_ids = list(task_ids)
    env = make_env()
    told = [env.instruction, style.reply_format, PREFILL] if opening is None else opening.record()
    settings: dict[str, Any] = {"environment": env.name, "opening": told, "max_steps": max_steps}
    if loop_limit is not None:
        settings["loop_limit"] = loop_limit
    if style.tools:
        settings["tools"] = list(style.tools)
    env.close()
    with sole_writer(path):
        _claim(path, {**model, **settings, "batch_size": batch_size})
        on_file = {rollout.task_id: rollout for rollout in read_rollouts(path)}
        known = dict(on_file)
        if retry_errors:
            known = {task: rollout for task, rollout in known.items() if rollout.error is None}
        playing: Surviving | None = None
        for start, batch in enumerate(in_batches(task_ids, batch_size)):
            if all(task in known for task in batch):
                continue
            playing = playing or Surviving(
                make_env,
                policy(),
                max_steps,
                style,
                opening,
                tasks=len(task_ids),
                has_started=bool(on_file),
                loop_limit=loop_limit,
            )
            # What broke off is tried again alone: its neighbours were finished in the same batch.
            fresh = (
                [t for t in batch if t not in known] if _was_run(batch, on_file) else list(batch)
            )
            before = [known[task] for task in task_ids if task in known and task not in fresh]

            def report(
                episodes: list[Episode],
                done: int = start * batch_size,
                before: list[Rollout] = before,
            ) -> None:
                on_turn(done, episodes)
                on_standing(_standing(before, episodes, len(task_ids), max_steps))

            episodes = playing.play([(task, task) for task in fresh], report)
            made = [rollout_of(e, agent) for e in episodes if e.task_id not in known]
            if any(rollout.task_id in on_file for rollout in made):
                on_file.update((rollout.task_id, rollout) for rollout in made)
                write_jsonl(path, (dump_rollout(rollout) for rollout in on_file.values()))
            else:
                append_jsonl(path, (dump_rollout(rollout) for rollout in made))
                on_file.update((rollout.task_id, rollout) for rollout in made)
            known.update((rollout.task_id, rollout) for rollout in made)
        return [known[task] for task in task_ids]


def _was_run(batch: Iterable[str], on_file: Mapping[str, Rollout]) -> bool:
    """Whether a batch was finished before, be it with errors."""
    return all(task in on_file for task in batch)


def _standing(before: list[Rollout], episodes: list[Episode], of: int, max_steps: int) -> Standing:
    over = [e for e in episodes if e.ended or len(e.turns) >= max_steps]
    running = [len(e.turns) for e in episodes if not (e.ended or len(e.turns) >= max_steps)]
    return Standing(
        ended=len(before) + len(over),
        of=of,
        solved=sum(r.success for r in before) + sum(e.success for e in over),
        errors=sum(r.error is not None for r in before) + sum(e.error is not None for e in over),
        turn=max(running, default=max((len(e.turns) for e in episodes), default=0)),
    )


def settings_path(path: Path) -> Path:
    """Where the settings of a file of rollouts are kept."""
    return path.with_name(path.name + ".settings.json")


def _claim(path: Path, settings: dict[str, Any]) -> None:
    beside = settings_path(path)
    if not path.is_file():
        write_jsonl(beside, [settings])
        return
    if not beside.is_file():
        raise AtlasError(
            f"{path} holds rollouts, but {beside.name}, which says how they were made, is gone: "
            "choose another file, or remove it."
        )
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
        differing = sorted(k for k in {*found, *settings} if found.get(k) != settings.get(k))
    except (ValueError, TypeError) as error:
        raise AtlasError(
            f"{beside} is broken ({error}), so nobody can tell how {path.name} was made: choose "
            "another file, or remove both."
        ) from error
    if differing:
        raise AtlasError(
            f"{path} holds rollouts made with another {' and '.join(differing)}: choose "
            "another file, or remove it."
        )
