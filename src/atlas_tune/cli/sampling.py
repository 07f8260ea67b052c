"""What `collect --policy` does: making the policy, letting it act, telling what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas_tune.cli.options import keep_rejected, tell, tell_rejected
from atlas_tune.errors import AtlasError
from atlas_tune.progress import ticking

if TYPE_CHECKING:
    from atlas_tune.agents.opening import Opening
    from atlas_tune.cli.policies import Served
    from atlas_tune.evaluate.rollouts import Standing
    from atlas_tune.evaluate.sampling import Acting, Bar, Sampled


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a policy acts, and how far."""

    environment: str
    tasks: Sequence[str]
    max_steps: int
    batch_size: int
    retry_errors: bool


@dataclass(frozen=True, slots=True)
class Drawn:
    """How replies are drawn."""

    temperature: float
    seed: int
    samples: int
    max_new_tokens: int


def sampled_runs(
    model: str,
    served: Served,
    precision: str,
    drawn: Drawn,
    wanted: Wanted,
    bar: Bar,
    directory: Path,
) -> Sampled:
    """The samples of a model, told as it was when it was tuned.

    A server's replies are on file before they are read, so that none is paid twice.

    Raises:
        UsageError: an option does not fit.
        AtlasError: the model cannot be had, or its server cannot be asked.
    """
    from atlas_tune.agents.opening import opening_of
    from atlas_tune.cli.policies import acting, is_served, tell_usage
    from atlas_tune.evaluate.sampling import Acting

    served.check(model)
    if is_served(model):
        directory.mkdir(parents=True, exist_ok=True)
        served = replace(served, journal=directory / "replies.jsonl")
    with acting(model, served, drawn.max_new_tokens, precision) as actor:
        sampling = Acting(
            actor.name,
            actor.policies,
            {name: value for name, value in actor.answers.items() if name != "model"},
            drawn.temperature,
            drawn.seed,
            drawn.samples,
        )
        opening = opening_of(actor.place, wanted.environment) if actor.place else None
        sampled = _sampled(sampling, wanted, bar, directory, opening)
        usage = actor.usage()
    if usage is not None:
        tell_usage(usage)
    return sampled


def _sampled(
    acting: Acting, wanted: Wanted, bar: Bar, directory: Path, opening: Opening | None
) -> Sampled:
    from atlas_tune.environments import make_environment
    from atlas_tune.evaluate.sampling import sample_runs

    with ticking(f"collect {wanted.environment}") as tick:

        def show(sample: int, standing: Standing) -> None:
            tick(
                standing.ended,
                standing.of,
                f"{standing} of sample {sample + 1} of {acting.samples}",
            )

        return sample_runs(
            lambda: make_environment(wanted.environment),
            wanted.tasks,
            acting,
            bar,
            directory,
            max_steps=wanted.max_steps,
            batch_size=wanted.batch_size,
            opening=opening,
            retry_errors=wanted.retry_errors,
            on_standing=show,
        )


def tell_sampled(sampled: Sampled, directory: Path, output: Path, as_json: bool) -> None:
    """Write the runs that were kept, and tell what became of the rest.

    Raises:
        AtlasError: none was kept. All are in ``directory``, so that another bar costs nothing.
        Exit: with code 3 where runs broke off; the quarantine lists them.
    """
    from atlas_tune.trajectory.files import writing
    from atlas_tune.trajectory.quarantine import Rejected

    rejected = [
        Rejected(place, 0, 0, f"the run broke off: {why}") for place, why in sampled.errors.items()
    ]
    tell_rejected(rejected)
    rest = ", ".join(
        f"{count} {fate}" for fate, count in sampled.fates.items() if count and fate != "kept"
    )
    if not sampled.trajectories:
        raise AtlasError(
            f"None of {sampled.episodes} runs was good enough ({rest}), so there is nothing to "
            f"write. They are kept in {directory}: the same command with a lower --min-reward "
            "plays none of them again."
        )
    with writing(output) as write:
        for trajectory in sampled.trajectories:
            write(trajectory)
    summary: dict[str, Any] = {
        "output": str(output),
        "trajectories": len(sampled.trajectories),
        "steps": sum(len(t.agent_steps) for t in sampled.trajectories),
        "tasks": sampled.tasks_kept,
        "episodes": sampled.episodes,
        "acceptance_rate": sampled.acceptance_rate,
        "fates": sampled.fates,
        "samples": str(directory),
    }
    told = f"; the rest: {rest}" if rest else ""
    tell(
        summary,
        as_json,
        "{trajectories} trajectories with {steps} steps of {tasks} tasks in {output}; "
        f"{{episodes}} episodes, {{acceptance_rate:.1%}} good enough{told}",
    )
    keep_rejected(output, rejected)
