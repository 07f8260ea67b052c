"""Running a benchmark: everything is looked up before anything runs, and each part resumes.

The directory of a run holds ``<part>.jsonl`` with its settings beside it, as ``evaluate`` writes
them, and ``results.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas_tune.agents.collect import first_tasks
from atlas_tune.environments import make_environment
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.evaluate.benchmark import Benchmark, BenchmarkPart
from atlas_tune.evaluate.benchmark_scores import (
    Episode,
    PartScore,
    RoleMean,
    part_score,
    results_record,
    role_means,
)
from atlas_tune.evaluate.rollouts import evaluate
from atlas_tune.replacing import replacing

if TYPE_CHECKING:
    from atlas_tune.agents.opening import Opening
    from atlas_tune.agents.policy import Policy
    from atlas_tune.evaluate.rollouts import Standing

RESULTS = "results.json"
"""The file of the result in a run's directory."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a benchmark can run here."""

    parts: tuple[tuple[BenchmarkPart, tuple[str, ...]], ...]
    """The parts with their task ids."""
    left_out: dict[str, str]
    """Why, by the name of the part, an environment cannot be had here."""


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """What a model scores."""

    scores: tuple[PartScore, ...]
    means: tuple[RoleMean, ...]
    left_out: dict[str, str]


OnStanding = Callable[[str, "Standing"], None]
"""Told a part's name and how far it has come."""


def _own_opening(environment: str) -> Opening | None:
    """The environment's own."""
    return None


def plan(benchmark: Benchmark, skip_missing: bool = False) -> Plan:
    """The tasks of every part, looked up before anything runs.

    Args:
        benchmark: what to run.
        skip_missing: leave out environments that cannot be had here, rather than refuse.

    Raises:
        UsageError: the benchmark names an environment, split or option that does not exist, or
            more tasks than there are.
        AtlasError: an environment cannot be had here (package, Java or data missing), and
            ``skip_missing`` was not asked for; or none of them can.
    """
    parts: list[tuple[BenchmarkPart, tuple[str, ...]]] = []
    left_out: dict[str, str] = {}
    for part in benchmark.environments:
        try:
            env = make_environment(part.environment)
            tasks = first_tasks(env, part.split, part.tasks, part.options)
        except UsageError as error:
            raise UsageError(f"The benchmark '{benchmark.name}', '{part.name}': {error}") from error
        except AtlasError as error:
            left_out[part.name] = str(error)
            continue
        parts.append((part, tuple(tasks)))
    if left_out and not (skip_missing and parts):
        reasons = " ".join(f"'{name}': {why}" for name, why in left_out.items())
        remedy = "" if not parts else " Or leave them out with --skip-missing."
        raise AtlasError(
            f"{len(left_out)} of {len(benchmark.environments)} parts of the benchmark "
            f"'{benchmark.name}' cannot run here. {reasons}{remedy}"
        )
    return Plan(tuple(parts), left_out)


def run_benchmark(
    benchmark: Benchmark,
    planned: Plan,
    policy: Callable[[], Policy],
    directory: Path,
    *,
    batch_size: int,
    agent: dict[str, Any],
    model: Mapping[str, Any],
    opening: Callable[[str], Opening | None] = _own_opening,
    retry_errors: bool = False,
    on_standing: OnStanding = lambda part, standing: None,
) -> BenchmarkResult:
    """Let a model act on every part; what the directory already holds is not run again.

    The result is also written to ``results.json``.

    Args:
        benchmark: what to run.
        planned: of :func:`plan`.
        policy: makes a policy; called once for each part that has something to run.
        directory: gets the rollouts and the result.
        batch_size: episodes that run at once.
        agent: name, version and model, as they go into the trajectories.
        model: identifies the model and how it answers, as JSON values.
        opening: by the name of an environment, what is told instead of its own instruction.
        retry_errors: run those tasks again whose runs on file broke off.
        on_standing: for progress.

    Raises:
        AtlasError: the directory holds rollouts of another model, benchmark or prompt.
    """
    episodes: dict[str, Sequence[Episode]] = {}
    scores: list[PartScore] = []
    for part, tasks in planned.parts:

        def report(standing: Standing, name: str = part.name) -> None:
            on_standing(name, standing)

        def fresh(name: str = part.environment) -> Any:
            return make_environment(name)

        rollouts = evaluate(
            fresh,
            tasks,
            policy,
            directory / f"{part.name}.jsonl",
            max_steps=part.max_steps,
            batch_size=batch_size,
            agent=agent,
            model={**model, "benchmark": benchmark.digest},
            opening=opening(part.environment),
            retry_errors=retry_errors,
            on_standing=report,
        )
        episodes[part.name] = [Episode(one.reward, one.success, one.error) for one in rollouts]
        scores.append(part_score(benchmark, part, episodes[part.name]))
    result = BenchmarkResult(tuple(scores), role_means(benchmark, episodes), dict(planned.left_out))
    record = results_record(benchmark, model, result.scores, result.means, result.left_out)
    with replacing(directory / RESULTS) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="ascii", newline="\n")
    return result
