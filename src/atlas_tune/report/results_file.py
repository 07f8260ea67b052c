"""Results on file: ``results.json`` in and out, and mistakes in it told as sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from atlas_tune.errors import AtlasError
from atlas_tune.replacing import replacing
from atlas_tune.report.results import Results


def parse_results(record: Results | dict[str, Any], place: str = "The results") -> Results:
    """The results of a JSON object; results pass through.

    Raises:
        AtlasError: a field is missing, unknown or wrong; the message names the first few.
    """
    try:
        return Results.model_validate(record)
    except ValidationError as error:
        found = error.errors(include_url=False)
        named = [f"{_path(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in found[:3]]
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise AtlasError(f"{place} cannot be reported: {'; '.join(named)}{more}.") from error


def _path(location: tuple[int | str, ...]) -> str:
    """``("arms", 0, "name")`` as ``arms[0].name``.

    >>> _path(("arms", 0, "name"))
    'arms[0].name'
    """
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location)
    return text.removeprefix(".") or "the whole"


def load_results(path: Path) -> Results:
    """The results of a ``results.json``.

    Raises:
        AtlasError: there is no such file, or it is not one of ours.
    """
    if not path.is_file():
        raise AtlasError(f"There is no file {path}. A finished `atlas-tune run` writes it.")
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:
        raise AtlasError(f"{path} is not JSON: {error}. Run the report stage again.") from error
    return parse_results(record, str(path))


def dump_results(results: Results) -> str:
    """The canonical text of results: sorted keys, two spaces, a newline at the end."""
    record = results.model_dump(mode="json")
    return json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def replace_file(path: Path, text: str) -> None:
    """Write a file so that a kill leaves the old one whole."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
