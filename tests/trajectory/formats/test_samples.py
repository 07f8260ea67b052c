"""The real samples, held against the table of docs/import.md."""

from collections import Counter

import pytest

from atlas_tune.trajectory.formats import read_sources
from shared_data import ROOT, shared_data

TABLE = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in (ROOT / "docs" / "import.md").read_text().splitlines()
    if line.startswith(("| `formats/", "| `agenttraj-l/", "| `alfworld/", "| `yardsticks/"))
]
NO_AGENT = "formats/inspect/log_tool_call_error.json"


def verdict(outcome):
    if outcome.success is not None:
        return "success" if outcome.success else "failure"
    return "unknown" if outcome.reward is None else "reward only"


@pytest.mark.shared_data
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0].strip("`"))
def test_a_sample_gives_what_the_documentation_says(row):
    path = shared_data() / row[0].strip("`")
    runs = [found.trajectory for found in read_sources([path], None, pytest.fail)]
    verdicts = Counter(verdict(run.outcome) for run in runs)
    assert row[1:] == [
        f"{len(runs):,}",
        f"{sum(len(run.agent_steps) for run in runs):,}",
        f"{sum(len(step.tool_calls) for run in runs for step in run.agent_steps):,}",
        ", ".join(f"{count:,} {name}" for name, count in sorted(verdicts.items())),
    ]


@pytest.mark.shared_data
def test_every_sample_stands_in_the_table():
    folder = shared_data() / "formats"
    side_files = {"config.json", "result.json", "reward.txt"}
    samples = {
        str(path.relative_to(shared_data()))
        for path in folder.rglob("*")
        if path.is_file() and path.name not in side_files
    }
    assert samples - {row[0].strip("`") for row in TABLE} == {NO_AGENT}
