"""What rollouts on a benchmark say: a score for each part, a mean for each role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from atlas_tune.evaluate.benchmark import Benchmark, BenchmarkPart, Metric, Role
from atlas_tune.evaluate.statistics.bootstrap import DRAWS, percentiles
from atlas_tune.evaluate.statistics.intervals import score_interval, wilson_interval

_SEED = 0
"""Of the bootstrap, so that the same rollouts give the same interval."""


@dataclass(frozen=True, slots=True)
class Episode:
    """What counts of one rollout: its return, and whether the goal was reached."""

    reward: float
    success: bool
    error: str | None = None
    """Why it broke off, if it did; it counts as failed."""


@dataclass(frozen=True, slots=True)
class PartScore:
    """What a model scores on one part; shares of one, intervals of 95%."""

    name: str
    environment: str
    role: Role
    metric: Metric
    tasks: int
    successes: int
    success_rate: float
    success_interval: tuple[float, float]
    """Wilson's."""
    mean_reward: float
    score: float
    """The metric's: success rate or mean reward."""
    score_interval: tuple[float, float]
    """Wilson's of a success rate; of a mean reward :func:`.statistics.score_interval`."""
    errors: int
    """Episodes that broke off; they count as failed."""
    benchmark: str
    """The benchmark's hash: a row that is copied elsewhere still says what it was measured on."""


@dataclass(frozen=True, slots=True)
class RoleMean:
    """The plain mean of the scores of a role's parts: every environment counts the same."""

    role: Role
    parts: int
    of: int
    """How many parts the benchmark has; fewer were evaluated where some were left out."""
    score: float
    interval: tuple[float, float] | None
    """A bootstrap over the tasks within each part: the environments themselves are given. None
    where no part has two tasks that differ."""


def part_score(benchmark: Benchmark, part: BenchmarkPart, episodes: Sequence[Episode]) -> PartScore:
    """The score of one part.

    Raises:
        ValueError: there is no episode.
    """
    if not episodes:
        raise ValueError("a score needs at least one episode")
    successes = sum(episode.success for episode in episodes)
    rate, wilson = successes / len(episodes), wilson_interval(successes, len(episodes))
    rewards = np.array([episode.reward for episode in episodes])
    is_rate = part.metric == "success"
    of_reward = score_interval(rewards, least=-1.0 if rewards.min() < 0 else 0.0)
    return PartScore(
        name=part.name,
        environment=part.environment,
        role=part.role,
        metric=part.metric,
        tasks=len(episodes),
        successes=successes,
        success_rate=rate,
        success_interval=wilson,
        mean_reward=float(rewards.mean()),
        score=rate if is_rate else float(rewards.mean()),
        score_interval=wilson if is_rate else of_reward,
        errors=sum(episode.error is not None for episode in episodes),
        benchmark=benchmark.digest,
    )


def role_means(
    benchmark: Benchmark, episodes: Mapping[str, Sequence[Episode]]
) -> tuple[RoleMean, ...]:
    """The means of the roles that the benchmark has and of which a part was evaluated.

    Args:
        benchmark: with its parts.
        episodes: by the name of the part; parts that were left out are missing.
    """
    means = []
    roles: tuple[Role, ...] = ("held-in", "held-out")
    for role in roles:
        parts = [part for part in benchmark.environments if part.role == role]
        values = [_values(part, episodes[part.name]) for part in parts if part.name in episodes]
        if values:
            generator = np.random.default_rng(_SEED)
            means_B = np.mean([_means_B(of_part, generator) for of_part in values], axis=0)
            score = float(np.mean([of_part.mean() for of_part in values]))
            means.append(RoleMean(role, len(values), len(parts), score, _interval(means_B)))
    return tuple(means)


def results_record(
    benchmark: Benchmark,
    model: Mapping[str, Any],
    scores: Sequence[PartScore],
    means: Sequence[RoleMean],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """The result as JSON values, with the whole benchmark and its hash in it."""
    return {
        "benchmark": benchmark.name,
        "benchmark_sha256": benchmark.digest,
        "definition": benchmark.model_dump(mode="json"),
        "model": dict(model),
        "parts": [asdict(score) for score in scores],
        "means": [asdict(mean) for mean in means],
        "left_out": dict(left_out),
    }


def _values(part: BenchmarkPart, episodes: Sequence[Episode]) -> np.ndarray[Any, Any]:
    return np.array(
        [float(e.success) if part.metric == "success" else e.reward for e in episodes], dtype=float
    )


def _interval(means_B: np.ndarray[Any, Any]) -> tuple[float, float] | None:
    """The middle 95% of drawn means; None where no draw differs from another."""
    # Means of equal values differ in their last bits where their sum is rounded.
    return None if np.ptp(means_B) < 1e-12 else percentiles(means_B, 0.95)


def _means_B(
    values_T: np.ndarray[Any, Any], generator: np.random.Generator
) -> np.ndarray[Any, Any]:
    """B means of tasks drawn with replacement (Efron 1979)."""
    drawn_BT = generator.integers(0, len(values_T), (DRAWS, len(values_T)))
    means: np.ndarray[Any, Any] = values_T[drawn_BT].mean(axis=1)
    return means
