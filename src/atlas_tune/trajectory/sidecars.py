"""Labels go where their trajectories go.

Import keeps the mask of its data in ``<store>.labels.jsonl``. A store that is made of another one
takes along the labels of the trajectories that it keeps; without them, a mask would be lost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from atlas_tune.trajectory.jsonl import cut_torn_line
from atlas_tune.trajectory.labels import StepLabel
from atlas_tune.trajectory.store import append_labels, read_labels

_AT_ONCE = 5000


def labels_beside(store: Path) -> Path:
    """Where the labels that came with a store stand."""
    return store.with_name(store.name + ".labels.jsonl")


def labels_behind(selection: Path) -> Path:
    """Where the labels behind a selection stand: in a recipe's run directory, or beside it."""
    in_run = selection.absolute().parent.with_name("labels") / selection.name
    is_in_run = selection.absolute().parent.name == "selections" and in_run.is_file()
    return in_run if is_in_run else labels_beside(selection)


def carry_labels(source: Path, kept: Mapping[Path, Collection[str]]) -> int:
    """Append the labels beside a store to those beside others, for what each of them keeps.

    Labels that stand there already are not repeated. Returns how many were appended.

    Args:
        source: the store that was read.
        kept: by new store, the ids of its trajectories.
    """
    sidecar = labels_beside(source)
    if not sidecar.is_file():
        return 0
    present = {store: _label_ids(labels_beside(store)) for store in kept}
    waiting: dict[Path, list[StepLabel]] = {store: [] for store in kept}
    count = 0
    for label in read_labels(sidecar):
        for store, ids in kept.items():
            if label.trajectory_id in ids and label.label_id not in present[store]:
                waiting[store].append(label)
                count += 1
                if len(waiting[store]) >= _AT_ONCE:
                    append_labels(labels_beside(store), waiting[store])
                    waiting[store].clear()
    for store, labels in waiting.items():
        if labels:
            append_labels(labels_beside(store), labels)
    return count


def _label_ids(sidecar: Path) -> set[str]:
    if not sidecar.is_file():
        return set()
    cut_torn_line(sidecar)
    return {label.label_id for label in read_labels(sidecar)}
