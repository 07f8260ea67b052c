"""Measured criticality: whether the steps that selections take are the ones that matter.

Four questions, each answered by playing recorded actions again and not by reading them:

- are they *necessary*: what is lost without each of them (``replay``), and where the score rises;
- are they *sufficient*: what is returned when they alone are played;
- do they *bring a policy nearer*: its success after them and before them (the paper's Table 6);
- are they the same steps that other selections take.

Each beside what random steps reach that match them in position and tokens. Definitions and how to
read them: docs/agreement.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from atlas_tune.errors import AtlasError
from atlas_tune.progress import Tick
from atlas_tune.select.auditing.criticality import (
    Bootstrap,
    Controls,
    Criticality,
    LeftOut,
    Measured,
    Policy,
    Whole,
)
from atlas_tune.select.auditing.marked import against, necessity_of, rises_of
from atlas_tune.select.auditing.matched_sets import BINS, Control, countable
from atlas_tune.select.auditing.measurement import (
    ROLLOUTS,
    Measurement,
    common_runs,
    controls_of,
    sets_of,
)
from atlas_tune.select.auditing.overlap import overlaps
from atlas_tune.select.auditing.places import Stands, Values, values_of, wanted_names
from atlas_tune.select.auditing.ratings import CRITICAL, Rater, of_labels
from atlas_tune.select.auditing.started import baseline, places_of, started
from atlas_tune.select.auditing.sufficiency import Replays, sufficiency
from atlas_tune.select.auditing.taken import BY_LABELS, Taken
from atlas_tune.select.controls.positions import position_bin
from atlas_tune.trajectory import Trajectory

if TYPE_CHECKING:
    from atlas_tune.agents.resume import Rollouts

NECESSITY = "necessity.labels.jsonl"
"""Where the measured necessity of steps is kept; a labels sidecar like any other."""
_LABELS_MISSING = "the labels beside it are not of all these runs"


def measure(measurement: Measurement, tick: Tick = lambda done, of, note: None) -> Criticality:
    """Measure selections on the runs that all of them have and that can be replayed.

    Args:
        measurement: what and how.
        tick: told how far it is.

    Raises:
        AtlasError: no run is in all selections, or none of them can be replayed; or a policy or
            an environment cannot be had.
    """
    from atlas_tune.agents.resume import Rollouts, play_recorded

    common = common_runs(measurement)
    labels, left_out = necessity_of(
        measurement.make_environment, common.runs, measurement.directory / NECESSITY, tick
    )
    runs, uncounted = countable(
        [run for run in common.runs if run.trajectory_id in labels], measurement.tokens
    )
    left_out += [LeftOut(one.trajectory_id, one.reason) for one in uncounted]
    if not runs:
        raise AtlasError(
            f"None of the {len(left_out)} runs can be measured. The first: {left_out[0].reason}."
        )
    player = measurement.player
    rollouts = Rollouts(measurement.make_environment, player.batch_size if player else 1)
    stands = {run.trajectory_id: play_recorded(rollouts.environment(run), run) for run in runs}
    necessity = of_labels("replay", [one for run in runs for one in labels[run.trajectory_id]])
    rises = rises_of(runs, measurement.make_environment)
    controls = controls_of(measurement, runs)
    places = places_of(runs, sets_of(measurement, controls))
    inside, not_started, values = _act(measurement, runs, stands, places, rollouts, tick)
    replays = Replays(measurement.make_environment, runs)
    bootstrap = (measurement.draws, measurement.seed)
    every = {r.trajectory_id: frozenset(s.step_id for s in r.agent_steps) for r in runs}
    whole = sufficiency(replays, every, (), *bootstrap)
    return Criticality(
        trajectories=len(runs),
        steps=sum(len(run.agent_steps) for run in runs),
        environments=dict(sorted(Counter(run.environment or "not named" for run in runs).items())),
        necessary=_marked(necessity),
        rises=_marked(rises),
        rises_at_ends=sum(
            rises.said[run.trajectory_id].get(run.agent_steps[-1].step_id) == CRITICAL
            for run in runs
        ),
        whole=Whole(whole.reward, whole.success),
        selections=tuple(
            _measured(measurement, taken, control, runs, necessity, rises, replays, inside, values)
            for taken, control in zip(measurement.selections, controls, strict=True)
        ),
        overlaps=overlaps(measurement.selections, runs, *bootstrap),
        controls=Controls(measurement.controls, BINS, measurement.tokens.unit, measurement.seed),
        policy=None
        if player is None
        else Policy(
            player.name,
            player.settings,
            player.temperature,
            player.rollouts,
            player.digest,
            len(inside),
        ),
        baseline=None if values is None else baseline(values, *bootstrap),
        rollouts=len(wanted_names(places, stands, 1)),
        bootstrap=Bootstrap(*bootstrap),
        left_out=tuple(left_out),
        not_started=tuple(not_started),
        not_selected=common.not_selected,
        beyond=common.beyond,
    )


def _act(
    measurement: Measurement,
    runs: Sequence[Trajectory],
    stands: Stands,
    places: Mapping[str, set[int]],
    rollouts: Rollouts,
    tick: Tick,
) -> tuple[list[Trajectory], list[LeftOut], Values | None]:
    """Start the policy inside runs: the runs in which it could, the others, and the values."""
    from atlas_tune.agents.resume import CannotResume, Place, conversation

    if measurement.player is None:
        return [], [], None
    inside, not_started = [], []
    for run in runs:
        try:
            conversation(Place(run, 0))
        except CannotResume as error:
            not_started.append(LeftOut(run.trajectory_id, str(error)))
        else:
            inside.append(run)
    values, too_long = values_of(
        inside,
        {run.trajectory_id: places[run.trajectory_id] for run in inside},
        stands,
        measurement.player,
        rollouts,
        measurement.directory / ROLLOUTS,
        lambda done, of: tick(done, of, "rollouts from inside runs"),
    )
    not_started += [LeftOut(one.trajectory_id, one.reason) for one in too_long]
    if not values:
        raise AtlasError(
            f"The policy can start inside none of the {len(runs)} runs. The first: "
            f"{not_started[0].reason}"
        )
    return [run for run in inside if run.trajectory_id in values], not_started, values


def _measured(
    measurement: Measurement,
    taken: Taken,
    control: Control,
    runs: Sequence[Trajectory],
    necessity: Rater,
    rises: Rater,
    replays: Replays,
    inside: Sequence[Trajectory],
    values: Values | None,
) -> Measured:
    bootstrap = (measurement.draws, measurement.seed)
    own = {run.trajectory_id: taken.steps[run.trajectory_id] for run in runs}
    steps = sum(map(len, own.values()))
    ordered_by, _ = taken.orders(runs)
    by_labels = ordered_by == BY_LABELS
    return Measured(
        name=taken.name,
        steps=steps,
        share=steps / sum(len(run.agent_steps) for run in runs),
        positions=_positions(own, runs),
        ordered_by=ordered_by,
        why_not_by_labels=None if by_labels else taken.why_no_labels or _LABELS_MISSING,
        necessity=against(taken, runs, necessity, control.sets, *bootstrap),
        rises=against(taken, runs, rises, control.sets, *bootstrap),
        sufficiency=sufficiency(replays, own, control.sets, *bootstrap),
        control_own=control.own,
        control_tokens=control.tokens,
        started=None if values is None else started(inside, values, own, control.sets, *bootstrap),
    )


def _marked(rater: Rater) -> int:
    return sum(said == CRITICAL for steps in rater.said.values() for said in steps.values())


def _positions(steps: Mapping[str, frozenset[int]], runs: Sequence[Trajectory]) -> tuple[int, ...]:
    found: Counter[int] = Counter()
    for run in runs:
        own = run.agent_steps
        for place, step in enumerate(own):
            if step.step_id in steps[run.trajectory_id]:
                found[position_bin(place, len(own), BINS)] += 1
    return tuple(found[part] for part in range(BINS))
