"""Export B: a tokenised dataset, for any trainer that leaves ``labels`` as they are.

A row is what :mod:`atlas_tune.tune.render` trains on: verified by decoding, and cut after its
last supervised token. So TRL, Unsloth, LLaMA-Factory or the plain Trainer of transformers see the
very tokens that our own trainer sees. ``labels`` are not shifted: models of transformers do that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory import Selection, Trajectory
from atlas_tune.tune.render import render_rows
from atlas_tune.tune.rows import Row

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

TOKENS_PER_GROUP = 1 << 20
"""Tokens that are held before they are written as one row group: about 10 MB."""

_OTHER_FILES = (".arrow", ".csv", ".gz", ".json", ".jsonl", ".xz", ".zst")
_DATASET_MARK = "state.json"
"""A file that every directory of ``save_to_disk`` has."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Selected steps that no row holds, and why."""

    trajectory_id: str
    step_ids: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        steps = ", ".join(map(str, self.step_ids))
        return f"trajectory {self.trajectory_id[:12]}, steps {steps}: {self.reason}"


@dataclass(slots=True)
class TokenisedSummary:
    """What was written; grows while the trajectories stream by."""

    rows: int = 0
    trajectories: int = 0
    """Trajectories with at least one row."""
    steps: int = 0
    """Selected steps in the rows."""
    tokens: int = 0
    supervised_tokens: int = 0
    longest_row: int = 0
    """Tokens of the longest row: a trainer's own length limit must not lie below it."""
    unselected: int = 0
    """Trajectories without a selected step; they carry no loss."""
    left_out: list[LeftOut] = field(default_factory=list)
    """What was selected and is not there."""


def write_tokenised(
    trajectories: Iterable[Trajectory],
    selections: Mapping[str, Selection] | None,
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
    *,
    max_tokens: int | None = None,
    with_ids: bool = True,
) -> TokenisedSummary:
    """Write the training rows of trajectories as a dataset of token ids and labels.

    The columns are ``input_ids``, ``attention_mask``, ``labels`` (−100 where a token is not
    supervised) and, unless declined, ``trajectory_id`` and ``step_ids``. Trajectories may be
    streamed; the output appears whole or not at all, and replaces an older one.

    Args:
        trajectories: what to train on.
        selections: the steps that carry loss by trajectory id; all agent steps without it.
        tokenizer: of the model that will be trained; its chat template decides the text.
        output: a file that ends in ``.parquet``, or a directory for ``datasets.load_from_disk``.
        max_tokens: longer rows (after the tail cut) are left out, never trimmed.
        with_ids: have the columns ``trajectory_id`` and ``step_ids``. LLaMA-Factory makes tensors
            of every column and so fails on them.

    Raises:
        AtlasError: no row is left to write, or the output cannot be what ``output`` names.
    """
    as_file = output.suffix == ".parquet"
    _check_output(output, as_file)
    summary = TokenisedSummary()
    rows = _at_least_one(_rows(trajectories, selections, tokenizer, max_tokens, summary), summary)
    output.parent.mkdir(parents=True, exist_ok=True)
    with _partial(output, as_file) as partial:
        if as_file:
            _write_parquet(partial, rows, with_ids)
        else:
            _write_directory(partial, rows, with_ids)
    return summary


def _rows(
    trajectories: Iterable[Trajectory],
    selections: Mapping[str, Selection] | None,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int | None,
    summary: TokenisedSummary,
) -> Iterator[Row]:
    """The rows to write, one after the other; what becomes of each is told to the summary."""
    for trajectory in trajectories:
        key = trajectory.trajectory_id
        if selections is None:
            chosen = tuple(step.step_id for step in trajectory.agent_steps)
            selection = Selection(key, chosen, "all")
        else:
            selection = selections.get(key, Selection(key, (), "none"))
        if not selection.step_ids:
            summary.unselected += 1
            continue
        try:
            rows = render_rows(tokenizer, trajectory, selection)
        except AtlasError as error:
            # One trajectory that a template refuses must not cost the others their export.
            summary.left_out.append(LeftOut(key, selection.step_ids, str(error)))
            continue
        before = summary.rows
        for row in rows:
            if max_tokens is not None and len(row.input_ids) > max_tokens:
                reason = f"{len(row.input_ids)} tokens, more than max_tokens = {max_tokens}"
                summary.left_out.append(LeftOut(key, _steps(row), reason))
                continue
            summary.rows += 1
            summary.steps += len(row.spans)
            summary.tokens += len(row.input_ids)
            summary.supervised_tokens += row.supervised
            summary.longest_row = max(summary.longest_row, len(row.input_ids))
            yield row
        summary.trajectories += summary.rows > before


def _at_least_one(rows: Iterable[Row], summary: TokenisedSummary) -> Iterator[Row]:
    """The same rows; where there is none, an error that says what became of the trajectories."""
    yield from rows
    if not summary.rows:
        first = f" The first of them: {summary.left_out[0]}." if summary.left_out else ""
        raise AtlasError(
            f"No row is left, so no dataset is written: {summary.unselected} trajectories have no "
            f"selected step, and {len(summary.left_out)} rows or trajectories had to be left out."
            f"{first}"
        )


def _steps(row: Row) -> tuple[int, ...]:
    return tuple(span.step_id for span in row.spans)


def _schema(with_ids: bool) -> pa.Schema:
    import pyarrow as pa

    # int32 holds any vocabulary and −100 in half the space; trainers make int64 tensors of it.
    columns = {
        "input_ids": pa.list_(pa.int32()),
        "attention_mask": pa.list_(pa.int8()),
        "labels": pa.list_(pa.int32()),
    }
    if with_ids:
        columns |= {"trajectory_id": pa.string(), "step_ids": pa.list_(pa.int32())}
    return pa.schema(columns)


def _write_parquet(path: Path, rows: Iterable[Row], with_ids: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(with_ids)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(rows):
            records = [_record(row) for row in group]
            writer.write_table(pa.Table.from_pylist(records, schema=schema))


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in groups of about ``TOKENS_PER_GROUP`` tokens: what is in memory at a time."""
    group: list[Row] = []
    tokens = 0
    for row in rows:
        group.append(row)
        tokens += len(row.input_ids)
        if tokens >= TOKENS_PER_GROUP:
            yield group
            group, tokens = [], 0
    if group:
        yield group


def _record(row: Row) -> dict[str, Any]:
    return {
        "input_ids": row.input_ids,
        "attention_mask": [1] * len(row.input_ids),
        "labels": row.labels,
        "trajectory_id": row.trajectory_id,
        "step_ids": _steps(row),
    }


def _write_directory(directory: Path, rows: Iterable[Row], with_ids: bool) -> None:
    """Write a directory as ``Dataset.save_to_disk`` does, by way of a parquet file.

    Both files are read and written piece by piece, so memory stays bounded here too.
    """
    import datasets

    directory.mkdir()
    parquet, cache = directory / "rows.parquet", directory / "cache"
    _write_parquet(parquet, rows, with_ids)
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        dataset = datasets.Dataset.from_parquet(str(parquet), cache_dir=str(cache))
        dataset.save_to_disk(str(directory / "dataset"))
    finally:
        if shown:
            datasets.enable_progress_bars()
    del dataset
    shutil.rmtree(cache)
    parquet.unlink()


def _check_output(output: Path, as_file: bool) -> None:
    """Refuse an output that is something else, before any work is done.

    Raises:
        AtlasError: see :func:`write_tokenised`.
    """
    if not as_file and output.suffix in _OTHER_FILES:
        raise AtlasError(
            f"A tokenised dataset is a file that ends in .parquet or a directory, not {output}."
        )
    if as_file and output.is_dir():
        raise AtlasError(f"{output} is a directory: name a file, or remove it.")
    if not as_file and output.exists() and not (output / _DATASET_MARK).is_file():
        raise AtlasError(
            f"{output} is there and is no dataset that save_to_disk made, so it is not replaced: "
            "name another directory, or remove it."
        )
    missing = _missing("pyarrow" if as_file else "datasets")
    if missing:
        raise AtlasError(f"A tokenised dataset needs the package {missing}: pip install {missing}.")


def _missing(package: str) -> str | None:
    import importlib.util

    return None if importlib.util.find_spec(package) else package


@contextmanager
def _partial(output: Path, as_file: bool) -> Iterator[Path]:
    """Where to write; what is there takes the place of ``output`` if all went well."""
    partial = output.with_name(output.name + ".partial")
    old = output.with_name(output.name + ".old")
    _remove(partial)
    if output.exists():
        _remove(old)
    elif old.exists():  # A kill came between the two moves below.
        old.rename(output)
    try:
        yield partial
        if as_file:
            os.replace(partial, output)
        else:
            # A directory cannot be replaced in one move: the old one steps aside first.
            if output.exists():
                output.rename(old)
            (partial / "dataset").rename(output)
            _remove(old)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
