"""Measured criticality on file: ``criticality.json`` and its page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from atlas_tune.errors import AtlasError
from atlas_tune.report.results_file import replace_file
from atlas_tune.select.auditing.criticality import Criticality, Measured

RECORD = "criticality.json"
_OWN = 0.95
"""A control of which more is the selection itself says nothing."""


@dataclass(frozen=True, slots=True)
class Made:
    """Where a measurement comes from."""

    created_at: str
    """ISO 8601, in UTC."""
    command: str
    version: str
    """Of atlas-tune."""
    runs: str
    """The file of the runs."""


def write_criticality(record: Mapping[str, Any], directory: Path) -> Path:
    """Write ``criticality.json`` and ``index.html`` into a directory; returns the page's path.

    Args:
        record: the fields of :class:`Criticality` as JSON values, and ``made``.
        directory: made where it is not there.

    Raises:
        AtlasError: the record does not fit.
    """
    # Matplotlib takes a second to load, and only the page needs it.
    from atlas_tune.report.criticality_page import render_criticality

    made, found = parse_criticality(record)
    page = render_criticality(made, found)
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(directory / RECORD, text)
    index = directory / "index.html"
    replace_file(index, page)
    return index


def parse_criticality(
    record: Mapping[str, Any], place: str = "The measurement"
) -> tuple[Made, Criticality]:
    """Where a record comes from, and its figures.

    Raises:
        AtlasError: a field is missing or wrong; the message names the first.
    """
    forms = _forms()
    fields = dict(record)
    try:
        made = forms[0].validate_python(fields.pop("made", {}))
        return made, forms[1].validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise AtlasError(f"{place} cannot be shown: {where}: {first['msg']}.") from error


def load_criticality(path: Path) -> tuple[Made, Criticality]:
    """What a ``criticality.json`` holds.

    Raises:
        AtlasError: there is no such file, or it is not one of ours.
    """
    if not path.is_file():
        raise AtlasError(f"There is no file {path}. `atlas-tune audit … --measure DIR` writes it.")
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:
        raise AtlasError(f"{path} is not JSON: {error}. Measure again.") from error
    if not isinstance(record, dict):
        raise AtlasError(f"{path} holds no measurement: it is no JSON object.")
    return parse_criticality(record, str(path))


def has_control(one: Measured) -> bool:
    """Whether the matched random steps are others than the selection's own."""
    return one.control_own is None or one.control_own <= _OWN


@cache
def _forms() -> tuple[TypeAdapter[Made], TypeAdapter[Criticality]]:
    return TypeAdapter(Made), TypeAdapter(Criticality)
