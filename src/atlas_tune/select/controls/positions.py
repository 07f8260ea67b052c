"""Where in their trajectories steps lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from atlas_tune.trajectory import Selection, Trajectory


def position_bin(place: int, steps: int, bins: int) -> int:
    """The part of a trajectory in which a step lies, of ``bins`` equal ones.

    A step's relative position is the middle of its share of the trajectory, (place + ½) / T, so
    that beginning and end are treated alike.

    >>> [position_bin(place, 4, 10) for place in range(4)]
    [1, 3, 6, 8]
    """
    return (2 * place + 1) * bins // (2 * steps)


def position_histogram(
    trajectories: Iterable[Trajectory], selections: Mapping[str, Selection], bins: int = 10
) -> list[int]:
    """How many selected steps lie in each of ``bins`` equal parts of their trajectories."""
    found: Counter[int] = Counter()
    for trajectory in trajectories:
        selection = selections.get(trajectory.trajectory_id)
        own = trajectory.agent_steps
        for place, step in enumerate(own):
            if selection is not None and step.step_id in selection.step_ids:
                found[position_bin(place, len(own), bins)] += 1
    return [found[part] for part in range(bins)]
