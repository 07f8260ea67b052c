"""``atlas-tune run --plan``: which stages are done, and how long the rest may take."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from atlas_tune.pipeline.experiment import EVERYTHING, Experiment, Only
from atlas_tune.pipeline.manifest import State
from atlas_tune.pipeline.run import weights_missed
from atlas_tune.pipeline.stage import Stage


@dataclass(frozen=True, slots=True)
class Planned:
    """A stage as it stands."""

    name: str
    state: State
    seconds: float | None
    """What a stage that is not done may take, as the nearest of its like took in this directory;
    None where none was done here."""


def plan(experiment: Experiment, only: Only = EVERYTHING) -> list[Planned]:
    """Every stage that a run would come by, in order; nothing is run and nothing is changed."""
    planned: list[Planned] = []
    open_names: set[str] = set()

    def look(stage: Stage) -> None:
        state = experiment.manifest.state(stage) if not open_names & {*stage.after} else State.NEW
        if state is not State.DONE:
            open_names.add(stage.name)
        seconds = None if state is State.DONE else _seconds(experiment, stage)
        planned.append(Planned(stage.name, state, seconds))

    for stage in experiment.preparing(only):
        look(stage)
    for model in experiment.models(only):
        if model.tuning is not None:
            look(model.tuning)
            if weights_missed(model, experiment.manifest):
                again = _seconds(experiment, model.tuning)
                planned[-1] = Planned(model.tuning.name, State.CHANGED, again)
        for stage in model.acting:
            look(stage)
    for stage in experiment.audits(only):
        look(stage)
    return planned


def _seconds(experiment: Experiment, stage: Stage) -> float | None:
    for word in stage.like:
        found = experiment.manifest.seconds_like(word)
        if found:
            return median(found)
    return None


def remaining(planned: list[Planned]) -> tuple[float, int]:
    """Seconds of what is not done, as far as they can be told, and of how many stages they
    cannot."""
    left = [one for one in planned if one.state is not State.DONE]
    known = [one.seconds for one in left if one.seconds is not None]
    return sum(known), len(left) - len(known)
