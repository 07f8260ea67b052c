"""The report of a run: one self-contained page, tables and plots, made from ``results.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atlas_tune.report.latex import to_latex
from atlas_tune.report.results import (
    Arm,
    Cell,
    Comparison,
    Complete,
    Data,
    Environment,
    Example,
    ExampleStep,
    Failures,
    LossCurve,
    LossPoint,
    Needed,
    Quarantined,
    Result,
    Results,
    RewardCurve,
    SeedScores,
    Started,
    TaskScores,
    Training,
    Transcript,
    TranscriptTurn,
)
from atlas_tune.report.results_file import (
    dump_results,
    load_results,
    parse_results,
    replace_file,
)
from atlas_tune.report.summary import summary
from atlas_tune.report.tables import markdown_page, to_console, to_markdown


def write_report(results: Results | dict[str, Any], directory: Path) -> Path:
    """Write ``results.json``, ``index.html``, ``results.md`` and ``tables.tex`` into a directory.

    The same results give the same bytes.

    Returns:
        The path of the page.

    Raises:
        AtlasError: the results do not fit the schema.
    """
    # Matplotlib takes a second to load, and only the page needs it.
    from atlas_tune.report.page import render_page

    record = dump_results(parse_results(results))
    # Read back, so that mappings have the order that they have on file.
    found = Results.model_validate_json(record)
    files = {
        "results.json": record,
        "results.md": markdown_page(found),
        "tables.tex": to_latex(found),
        "index.html": render_page(found),
    }
    for name, text in files.items():
        replace_file(directory / name, text)
    return directory / "index.html"


__all__ = [
    "Arm",
    "Cell",
    "Comparison",
    "Complete",
    "Data",
    "Environment",
    "Example",
    "ExampleStep",
    "Failures",
    "LossCurve",
    "LossPoint",
    "Needed",
    "Quarantined",
    "Result",
    "Results",
    "RewardCurve",
    "SeedScores",
    "Started",
    "TaskScores",
    "Training",
    "Transcript",
    "TranscriptTurn",
    "load_results",
    "summary",
    "to_console",
    "to_latex",
    "to_markdown",
    "write_report",
]
