"""Environments without a model: their steps per second, and what many episodes cost."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kept import Kept, Record

from atlas_tune.agents.rollout import run_expert, run_policy
from atlas_tune.agents.streams import stream_of
from atlas_tune.environments import ENVIRONMENT_NAMES, make_environment
from atlas_tune.environments.base import ExpertFailed, TextEnv
from atlas_tune.errors import AtlasError
from atlas_tune.trajectory.messages import Message


def recorded(environment: str, count: int) -> dict[str, tuple[str, ...]]:
    """What an expert says in tasks drawn by lot, by task; those are left out that it gives up.

    Raises:
        AtlasError: the environment is not available here.
    """
    env = make_environment(environment)
    split = "train" if "train" in env.splits else env.splits[0]
    found: dict[str, tuple[str, ...]] = {}
    tasks = list(env.tasks(split))
    # Else the first would be the easiest, and a larger number of episodes would be harder ones.
    random.Random(0).shuffle(tasks)
    for task in tasks:
        if len(found) == count:
            break
        try:
            episode = run_expert(env, task, lambda: env.expert(0), env.max_steps)
        except ExpertFailed:
            continue
        found[task] = tuple(said for said, _, _ in episode.turns)
    env.close()
    return found


def steps_of(environment: str, tasks: int) -> Record:
    """Seconds of resets and of steps, each by itself; why, where there is no such environment."""
    from atlas_tune.agents.react import parse_turn

    try:
        said = recorded(environment, tasks)
    except AtlasError as error:
        return {"missing": str(error)}
    env = make_environment(environment)
    resets = steps = 0.0
    count = 0
    for task, replies in said.items():
        actions = [parse_turn(reply).action for reply in replies]
        started = time.perf_counter()
        env.reset(options={"task_id": task})
        begun = time.perf_counter()
        for action in actions:
            if action is not None:
                env.step(action)
                count += 1
        steps += time.perf_counter() - begun
        resets += begun - started
    env.close()
    return {
        "tasks": len(said),
        "steps": count,
        "steps_per_second": count / steps,
        "reset_milliseconds": 1000 * resets / len(said),
        "steps_per_second_with_resets": count / (steps + resets),
    }


def environments(options: argparse.Namespace) -> Record:
    """Steps per second of each environment; medians over the rounds."""
    kept = Kept("rollouts-environments", {"tasks": options.tasks})
    for number in range(options.rounds):
        for name in options.only or ENVIRONMENT_NAMES:
            key = {"round": number, "environment": name}
            kept.measured(key, lambda e=name: steps_of(e, options.tasks))  # type: ignore[misc]
    found: Record = {}
    for name in options.only or ENVIRONMENT_NAMES:
        rounds = [one for one in kept.done if one["environment"] == name]
        # What was missing may have been installed since: the last round says what there is.
        played = [one for one in rounds if "missing" not in one]
        found[name] = _medians(played) if played else {"missing": rounds[-1]["missing"]}
    return {"rounds": options.rounds, "environments": found}


class Recorded:
    """A policy that costs nothing: it says what an expert said in the same task."""

    def __init__(self, said: Mapping[str, Sequence[str]]) -> None:
        self.said = said

    def replies(self, conversations: Mapping[str, Sequence[Message]]) -> dict[str, str]:
        """The recorded message of each episode's turn; its key begins with the task's name."""
        found = {}
        for key, messages in conversations.items():
            # The prefill is an assistant message too.
            turn = sum(message["role"] == "assistant" for message in messages) - 1
            found[key] = self.said[stream_of(key).replace("%23", "#")][turn]
        return found


def grown(environment: str, episodes: int) -> Record:
    """One evaluation of so many episodes, in this process: its seconds and memory."""
    from atlas_tune.evaluate.rollouts import evaluate

    said = recorded(environment, episodes)
    env: TextEnv = make_environment(environment)
    # What is imported at the first episode is no part of any size.
    run_policy(lambda: make_environment(environment), list(said)[:2], Recorded(said), env.max_steps)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        rollouts = evaluate(
            lambda: make_environment(environment),
            list(said),
            lambda: Recorded(said),
            Path(folder) / "rollouts.jsonl",
            max_steps=env.max_steps,
            batch_size=10,
            agent={"name": "recorded", "version": "1"},
            model={"model": "recorded"},
        )
        seconds = time.perf_counter() - started
    turns = sum(one.turns for one in rollouts)
    return {
        "seconds": seconds,
        "tasks": len(rollouts),
        "turns": turns,
        "solved": sum(one.success for one in rollouts),
        "milliseconds_per_episode": 1000 * seconds / len(rollouts),
        "milliseconds_per_turn": 1000 * seconds / turns,
        "bytes_gained": _status("VmHWM") - before,
    }


def growth(options: argparse.Namespace) -> Record:
    """Seconds per episode and memory at several sizes; medians over the rounds."""
    kept = Kept("rollouts-growth", {"sizes": options.sizes, "environments": options.only})

    def alone(environment: str, size: int) -> Record:
        words = [sys.executable, __file__, environment, str(size)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        found: Record = json.loads(done.stdout.splitlines()[-1])
        return found

    for number in range(options.rounds):
        for environment in options.only:
            for size in options.sizes:
                key = {"round": number, "environment": environment, "size": size}
                kept.measured(key, lambda e=environment, s=size: alone(e, s))  # type: ignore[misc]
    found = {
        environment: {
            str(size): _medians(
                [o for o in kept.done if (o["environment"], o["size"]) == (environment, size)]
            )
            for size in options.sizes
        }
        for environment in options.only
    }
    return {"rounds": options.rounds, "environments": found}


def _medians(rounds: Sequence[Record]) -> Record:
    names = [n for n in rounds[0] if n not in ("round", "environment", "size")]
    return {name: statistics.median(one[name] for one in rounds) for name in names}


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


if __name__ == "__main__":  # what `growth` starts for each measurement
    print(json.dumps(grown(sys.argv[1], int(sys.argv[2]))))
