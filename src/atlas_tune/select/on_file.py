"""Labels that stand in a sidecar already, read as a selector gives them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from atlas_tune.errors import UsageError, nearest
from atlas_tune.select.base import Alone, CannotLabel, SelectorOptions
from atlas_tune.trajectory import LabelSource, StepLabel, Trajectory, standing, with_corrections
from atlas_tune.trajectory.store import read_labels


class OnFileOptions(SelectorOptions):
    """The settings of labels on file."""

    file: str
    """The sidecar, as ``FILE``, or ``FILE#NAME`` where several have labelled."""


class LabelsOnFile(Alone):
    """The labels of one source in a sidecar, as corrected by people."""

    share: float | None = 1.0

    def __init__(self, place: str) -> None:
        """``place`` is ``FILE`` or ``FILE#NAME``, NAME a selector or a person.

        Where NAME has labelled with several settings, ``FILE#NAME VERSION MODEL`` says which.

        Raises:
            UsageError: there is no such file or name in it, or more than one source fits.
            BadRecord: a line of the file is no label.
        """
        file, _, name = place.partition("#")
        path = Path(file)
        if not path.is_file():
            raise UsageError(f"There is no labels file {path}. Check the path.")
        labels = list(read_labels(path))
        # Who only corrects is no source of its own.
        own = (one.source for one in labels if one.supersedes is None)
        source = _the_one(path, name, list(dict.fromkeys(replace(one, run_id=None) for one in own)))
        kept = with_corrections(labels, lambda one: replace(one, run_id=None) == source)
        self.name = source.name
        self._path = path
        self._labels = standing(kept)
        ids = "\n".join(sorted(label.label_id for label in kept))
        self.version = f"{source.version} on file {hashlib.sha256(ids.encode()).hexdigest()[:12]}"

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """The labels of the trajectory's agent steps, a judge's in its order.

        Raises:
            CannotLabel: the file has none of this trajectory, or not of every step.
        """
        found = self._labels.get(trajectory.trajectory_id, [])
        missing = {s.step_id for s in trajectory.agent_steps} - {one.step_id for one in found}
        if missing:
            what = "of this trajectory" if not found else f"of its step {min(missing)}"
            raise CannotLabel(f"{self._path} has no label of {self.name} {what}")
        return found


class OnFileSelector(LabelsOnFile):
    """``labels``: the steps that a person, or whoever else, named in a sidecar.

    The budget does not apply: who labelled has chosen.
    """

    def __init__(self, options: OnFileOptions) -> None:
        """As :class:`LabelsOnFile`.

        Raises:
            UsageError: there is no such file or name in it, or more than one source fits.
            BadRecord: a line of the file is no label.
        """
        super().__init__(options.file)
        self.name, self.version = "labels", f"{self.name} {self.version}"

    def label(self, trajectory: Trajectory) -> list[StepLabel]:
        """The labels as they stand, under this selector's name.

        Raises:
            CannotLabel: the file has none of this trajectory, or not of every step.
        """
        return [
            replace(label, source=self.source, supersedes=None)
            for label in super().label(trajectory)
        ]


def _the_one(path: Path, name: str, sources: Sequence[LabelSource]) -> LabelSource:
    """The source that a name means."""
    fitting = [one for one in sources if not name or name in _forms(one)]
    if not sources:
        raise UsageError(f"{path} holds no labels at all. Check the path.")
    if not fitting:
        known = nearest(name, {one.name for one in sources})
        raise UsageError(f"{path} holds no labels of '{name}': {known}")
    if len(fitting) > 1:
        names = sorted(_forms(one)[-1] for one in fitting)
        raise UsageError(
            f"{path} holds labels of several sources: {', '.join(names)}. Name one of them behind "
            f"a '#', as in {path}#{names[0]}."
        )
    return fitting[0]


def _forms(source: LabelSource) -> list[str]:
    """How a source may be named: ever more of its name, version, model and prompt."""
    parts = [source.name, source.version, source.model, source.prompt_hash]
    return list(accumulate((part for part in parts if part), "{} {}".format))
