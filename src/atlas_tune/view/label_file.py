"""A labels sidecar as a person reads it and adds to it, while others may do the same."""

from __future__ import annotations

import getpass
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.select.auditing.ratings import source_name
from atlas_tune.sole_writer import sole_writer
from atlas_tune.trajectory import (
    InvalidTrajectory,
    Kind,
    LabelSource,
    StepLabel,
    Trajectory,
    stamped,
    standing,
    with_corrections,
)
from atlas_tune.trajectory.json_values import parse_json
from atlas_tune.trajectory.labels import parse_label
from atlas_tune.trajectory.store import append_labels

PATIENCE_SECONDS = 2.0
"""So long a judgement waits for another process that writes the file."""


class Outdated(AtlasError):
    """What a person saw when she judged is no longer what stands."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a person says of one step."""

    trajectory: Trajectory
    step_id: int
    source: str
    """Whose labels it is about: her own, or those that she corrects."""
    seen: str | None
    """The id of the label that she saw stand there; None for none."""
    kind: Kind = Kind.NONE
    restored: str | None = None
    """The id of an earlier label of the step that shall stand again, instead of a kind."""
    reason: str | None = None


class LabelFile:
    """The labels of a sidecar, and one person who adds to it.

    The file is read on as it grows, so that what others append is seen. Half a line at its end is
    one that another process is writing: it is read when it is whole.
    """

    def __init__(self, path: Path, annotator: str | None = None, *, is_blind: bool = False) -> None:
        """``annotator`` is who adds, by default who is logged in; blind, she sees her own alone.

        Raises:
            UsageError: the annotator has no name, or that of a selector.
            AtlasError: a line of the file is no label.
        """
        self.path = path
        self.annotator = LabelSource(_name_of(annotator))
        self.is_blind = is_blind
        self._labels: dict[str, list[StepLabel]] = defaultdict(list)
        self._read_bytes = self._read_lines = 0
        self.refresh()
        for labels in self._labels.values():
            for label in labels:
                source = label.source
                if source.name == self.annotator.name and source != self.annotator:
                    raise UsageError(
                        f"{path} holds labels of a selector '{source.name}': choose another --name."
                    )

    @property
    def own(self) -> str:
        """The name of the annotator's own labels among the sources."""
        return source_name(self.annotator)

    @property
    def sources(self) -> dict[str, int]:
        """How many labels each source has given, corrections aside."""
        counts: Counter[LabelSource] = Counter()
        for labels in self._labels.values():
            counts.update(label.source for label in labels if label.supersedes is None)
        named: Counter[str] = Counter()
        for source, count in counts.items():
            if not self.is_blind or source == self.annotator:
                named[source_name(source)] += count
        return dict(named)

    def refresh(self) -> None:
        """Read what was appended since.

        Raises:
            AtlasError: a line is no label.
        """
        if not self.path.is_file():
            return
        if self.path.stat().st_size < self._read_bytes:
            self._labels.clear()
            self._read_bytes = self._read_lines = 0
        with self.path.open("rb") as stream:
            stream.seek(self._read_bytes)
            fresh = stream.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        lines = whole.splitlines()
        read = []
        for number, line in enumerate(lines, start=self._read_lines + 1):
            try:
                read += [parse_label(parse_json(line))] if line.strip() else []
            except (ValueError, RecursionError, InvalidTrajectory) as error:
                raise AtlasError(f"{self.path}, line {number}: {error}") from error
        for label in read:
            self._labels[label.trajectory_id].append(label)
        self._read_bytes += len(whole)
        self._read_lines += len(lines)

    def of_run(self, trajectory_id: str) -> Sequence[StepLabel]:
        """All labels of a run that may be seen, in the order in which they were made."""
        labels = self._labels.get(trajectory_id, [])
        if self.is_blind:
            return with_corrections(labels, lambda source: source == self.annotator)
        return labels

    def said(self, trajectory_id: str, source: str) -> list[StepLabel]:
        """What stands of a source's labels of a run, as corrected, in its order."""
        chain = with_corrections(self.of_run(trajectory_id), lambda one: source_name(one) == source)
        return standing(chain).get(trajectory_id, [])

    def judge(self, judgement: Judgement) -> None:
        """Append what a person says, unless it stands already.

        Her own label is one of hers; a correction is one of hers that supersedes another's. A
        corrected step that she calls critical gets a score above all others of its run, so that
        the budget takes it first.

        Raises:
            Outdated: another label stands there by now; nothing is written.
            UsageError: the step is not one of the agent's own, or there is no label to correct.
            AtlasError: another process is writing the file.
        """
        run, step_id = judgement.trajectory, judgement.step_id
        if step_id not in {step.step_id for step in run.agent_steps}:
            raise UsageError(f"Step {step_id} is not one of the agent's own.")
        with _writing(self.path):
            self.refresh()
            said = self.said(run.trajectory_id, judgement.source)
            now = next((label for label in said if label.step_id == step_id), None)
            if (now.label_id if now else None) != judgement.seen:
                raise Outdated(
                    f"Step {step_id} was labelled by somebody else meanwhile: look again."
                )
            label = self._label(judgement, now, said)
            if now is None or (label.kind, label.score) != (now.kind, now.score) or label.reason:
                append_labels(self.path, stamped([label]))
                self.refresh()

    def finish(self, trajectory: Trajectory) -> int:
        """Call every step of a run uncritical that the annotator has not judged; returns how many.

        Raises:
            AtlasError: another process is writing the file.
        """
        with _writing(self.path):
            self.refresh()
            judged = {label.step_id for label in self.said(trajectory.trajectory_id, self.own)}
            rest = [step for step in trajectory.agent_steps if step.step_id not in judged]
            append_labels(
                self.path,
                stamped(
                    StepLabel(trajectory.trajectory_id, step.step_id, Kind.NONE, self.annotator)
                    for step in rest
                ),
            )
            self.refresh()
        return len(rest)

    def _label(
        self, judgement: Judgement, now: StepLabel | None, said: Iterable[StepLabel]
    ) -> StepLabel:
        is_own = judgement.source == self.own
        if now is None and not is_own:
            raise UsageError(
                f"{judgement.source} says nothing of step {judgement.step_id}, so there is nothing "
                "to correct: label it under your own name."
            )
        kind: Kind | None = judgement.kind
        score, reason = None, judgement.reason
        if judgement.restored is not None:
            earlier = self._earlier(judgement)
            kind, score, reason = earlier.kind, earlier.score, earlier.reason
        elif not is_own and kind is not Kind.NONE:
            # To call the kind of a step by another name moves it no further.
            score = now.score if now and now.source == self.annotator else None
            score = _above(said) if score is None else score
        return StepLabel(
            judgement.trajectory.trajectory_id,
            judgement.step_id,
            kind,
            self.annotator,
            score=score,
            reason=reason,
            supersedes=None if is_own or now is None else now.label_id,
        )

    def _earlier(self, judgement: Judgement) -> StepLabel:
        for label in self.of_run(judgement.trajectory.trajectory_id):
            if label.step_id == judgement.step_id and label.label_id == judgement.restored:
                return label
        raise UsageError(f"Step {judgement.step_id} has no label {judgement.restored}.")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Hold the file; another person's judgement is waited for, ``select`` is not."""
    with ExitStack() as stack:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                stack.enter_context(sole_writer(path))
                break
            except AtlasError:
                if time.monotonic() >= until:
                    raise
                time.sleep(0.05)
        yield


def _above(said: Iterable[StepLabel]) -> float:
    """A score that no label of the run has."""
    return max((label.score for label in said if label.score is not None), default=0.0) + 1.0


def _name_of(annotator: str | None) -> str:
    # Here and not above: the registry knows every selector's module.
    from atlas_tune.select.registry import SELECTOR_NAMES

    name = annotator
    if name is None:
        try:
            name = getpass.getuser()
        except (KeyError, OSError) as error:
            raise UsageError("Nobody is logged in by name here: give yours with --name.") from error
    if not name.strip() or name.strip() != name or "#" in name or "@" in name:
        raise UsageError(f"'{name}' is no name for labels: no space around it, no '#' and no '@'.")
    if name in SELECTOR_NAMES:
        raise UsageError(f"'{name}' is a selector: choose another --name.")
    return name
