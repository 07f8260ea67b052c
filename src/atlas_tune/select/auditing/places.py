"""Rollouts of a policy from inside recorded runs, on file.

A *place* is a run after its first t agent steps as recorded; the policy goes on from there. What
comes of it depends on the place and on the policy and not on any selection, so that all selections
share one file. Each line is one rollout, named by run, t, number and policy; a killed measurement
goes on from the lines that are whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from atlas_tune.select.labelling import Unlabelled
from atlas_tune.trajectory import Trajectory
from atlas_tune.trajectory.canonical import canonical_json
from atlas_tune.trajectory.fields import Number, an_object, typed
from atlas_tune.trajectory.jsonl import append_jsonl, cut_torn_line
from atlas_tune.trajectory.quarantine import Rejected, refuse
from atlas_tune.trajectory.store import read_records

if TYPE_CHECKING:
    from atlas_tune.agents.making import PolicyMaker
    from atlas_tune.agents.policy import Policy
    from atlas_tune.agents.resume import Rollouts, Stand

Name = tuple[str, int, int]
"""The run, how many of its steps were played, and the number of the rollout."""


@dataclass(frozen=True, slots=True)
class Player:
    """A policy that goes on from places, and everything that decides its answers."""

    maker: PolicyMaker
    settings: Mapping[str, Any]
    """What decides the answers besides ``temperature``, as JSON values; the model's digest among
    them."""
    name: str = "the policy"
    """What it is called; decides nothing."""
    temperature: float = 0.0
    rollouts: int = 1
    """From each place."""
    batch_size: int = 32
    """Rollouts at once."""

    @property
    def digest(self) -> str:
        """Names the policy in the file of rollouts."""
        told = canonical_json({**self.settings, "temperature": self.temperature})
        return hashlib.sha256(told.encode("ascii")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout from a place."""

    trajectory_id: str
    t: int
    """How many recorded steps were played before the policy's own."""
    seed: int
    """The number of the rollout. Rollouts of one run and number share their random numbers."""
    policy: str
    """The digest of the policy."""
    reward: float
    """The return of the whole run, recorded steps included."""
    success: bool
    turns: int
    """The policy's own."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is to be expected from a place."""

    reward: float
    """Mean return of the whole run."""
    success: float
    """The share of rollouts that succeed."""


Stands = Mapping[str, "Sequence[Stand]"]
"""By run, how it stands after 0 to T of its recorded steps."""
Values = Mapping[str, Mapping[int, Value]]
"""By run and number of recorded steps."""


def read_known(path: Path, policy: str, *, mend: bool = True) -> dict[Name, Rollout]:
    """The rollouts of a policy that a file holds.

    Args:
        path: the file; it need not exist.
        policy: its digest.
        mend: cut off half a line that a kill left; else bad lines are only passed over.

    Raises:
        BadRecord: a line is no rollout.
    """
    if not path.is_file():
        return {}
    reject: Callable[[Rejected], None] = refuse
    if mend:
        cut_torn_line(path)
    else:
        reject = _pass_over
    found = read_records(path, _parse, reject)
    return {(r.trajectory_id, r.t, r.seed): r for r in found if r.policy == policy}


def _pass_over(_: Rejected) -> None:
    pass


def _parse(record: Any) -> Rollout:
    where = "rollout"
    record = an_object(record, where, "trajectory_id t seed policy reward success turns")
    return Rollout(
        trajectory_id=typed(record, "trajectory_id", str, where, required=True),
        t=typed(record, "t", int, where, required=True),
        seed=typed(record, "seed", int, where, required=True),
        policy=typed(record, "policy", str, where, required=True),
        reward=typed(record, "reward", Number, where, required=True),
        success=typed(record, "success", bool, where, required=True),
        turns=typed(record, "turns", int, where, required=True),
    )


def values_of(
    runs: Sequence[Trajectory],
    places: Mapping[str, Iterable[int]],
    stands: Stands,
    player: Player,
    rollouts: Rollouts,
    path: Path,
    on_rollout: Callable[[int, int], None] = lambda done, of: None,
) -> tuple[Values, list[Unlabelled]]:
    """The values of places; what the file does not hold is rolled out and appended as it comes.

    Where the recorded steps have already ended the run there is nothing to roll out: its value is
    how it ended.

    Args:
        runs: of all places.
        places: by run, the numbers of recorded steps to start after.
        stands: of each run, after 0 to T of its steps.
        player: the policy.
        rollouts: plays.
        path: the file.
        on_rollout: called with how many rollouts are known, of how many.

    Returns:
        The values, and the runs that the policy cannot read, which have none.
    """
    from atlas_tune.agents.making import ConversationTooLong

    by_id = {run.trajectory_id: run for run in runs}
    known = read_known(path, player.digest)
    wanted = wanted_names(places, stands, player.rollouts)
    missing = [name for name in wanted if name not in known]
    refused: dict[str, str] = {}
    policy = player.maker(0, player.temperature) if missing else None
    done = len(wanted) - len(missing)
    on_rollout(done, len(wanted))

    def roll(names: Sequence[Name]) -> None:
        assert policy is not None
        found = _rolled(names, by_id, player, rollouts, policy)
        append_jsonl(path, [asdict(one) for one in found])
        known.update(((one.trajectory_id, one.t, one.seed), one) for one in found)

    for names in _batches(missing, player.batch_size):
        left = [name for name in names if name[0] not in refused]
        try:
            roll(left)
        except ConversationTooLong:
            # One of them is too long: it alone must not take the others along.
            for name in left:
                try:
                    if name[0] not in refused:
                        roll([name])
                except ConversationTooLong as error:
                    refused[name[0]] = str(error)
        done += len(names)
        on_rollout(done, len(wanted))
    values = {
        key: {t: _value(key, t, stands[key], known, player.rollouts) for t in sorted(set(ts))}
        for key, ts in places.items()
        if key not in refused
    }
    return values, [Unlabelled(key, reason) for key, reason in sorted(refused.items())]


def wanted_names(places: Mapping[str, Iterable[int]], stands: Stands, rollouts: int) -> list[Name]:
    """The rollouts that these places take; those at which the run has ended take none.

    Where the stands of a run are not known, all of its places count.
    """
    return [
        (key, t, number)
        for key, ts in sorted(places.items())
        for t in sorted(set(ts))
        for number in range(rollouts)
        if key not in stands or not stands[key][t].ended
    ]


def _batches(names: Sequence[Name], size: int) -> Iterator[Sequence[Name]]:
    """Runs in order, so that what is on file after a kill is whole runs and one that is not."""
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _rolled(
    names: Sequence[Name],
    by_id: Mapping[str, Trajectory],
    player: Player,
    rollouts: Rollouts,
    policy: Policy,
) -> list[Rollout]:
    from atlas_tune.agents.resume import Attempt, Place

    # A stream for each run and number: paired within a run, independent between runs, which is
    # what the bootstrap by trajectory takes for granted.
    attempts = [Attempt(Place(by_id[key], t), f"{key}.{number}") for key, t, number in names]
    endings = rollouts.play(attempts, policy)
    return [
        Rollout(key, t, number, player.digest, ending.reward, ending.success, ending.turns)
        for (key, t, number), ending in zip(names, endings, strict=True)
    ]


def _value(
    key: str,
    t: int,
    stands: Sequence[Stand],
    known: Mapping[Name, Rollout],
    rollouts: int,
) -> Value:
    if stands[t].ended:
        return Value(stands[t].reward, float(stands[t].success))
    found = [known[key, t, number] for number in range(rollouts)]
    return Value(fmean(one.reward for one in found), fmean(one.success for one in found))
