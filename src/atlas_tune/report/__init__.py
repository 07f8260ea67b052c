"""The report of a run: tables, plots and one self-contained page, made from ``results.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atlas_tune.report.results import (
    Arm,
    Comparison,
    Data,
    Environment,
    Example,
    ExampleStep,
    LossCurve,
    LossPoint,
    Quarantined,
    Result,
    Results,
    RewardCurve,
    Training,
)
from atlas_tune.report.results_file import (
    dump_results,
    load_results,
    parse_results,
    replace_file,
)
from atlas_tune.report.summary import summary
from atlas_tune.report.tables import to_console, to_markdown


def write_report(results: Results | dict[str, Any], directory: Path) -> Path:
    """Write ``results.json`` and ``index.html`` into a directory; returns the page's path.

    Raises:
        AtlasError: the results do not fit the schema.
    """
    # Matplotlib takes a second to load, and only the page needs it.
    from atlas_tune.report.page import render_page

    found = parse_results(results)
    page = render_page(found)
    replace_file(directory / "results.json", dump_results(found))
    index = directory / "index.html"
    replace_file(index, page)
    return index


__all__ = [
    "Arm",
    "Comparison",
    "Data",
    "Environment",
    "Example",
    "ExampleStep",
    "LossCurve",
    "LossPoint",
    "Quarantined",
    "Result",
    "Results",
    "RewardCurve",
    "Training",
    "load_results",
    "summary",
    "to_console",
    "to_markdown",
    "write_report",
]
