"""What docs/results and the README show is what the committed scores say, to the byte."""

import re
from pathlib import Path

import pytest

from atlas_tune.report import load_results, to_markdown, write_report
from atlas_tune.report.compared import restated

PROJECT = Path(__file__).parents[2]
COMMITTED = sorted((PROJECT / "docs" / "results").glob("*/results.json"))
_BLOCK = re.compile(r"<!-- results of (\S+) -->\n(.*?)<!-- end of results -->", re.DOTALL)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_the_statistics_of_committed_scores_give_the_committed_page(path, tmp_path):
    results = load_results(path)
    assert restated(results) == results
    write_report(results, tmp_path)
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert made == {name: (path.parent / name).read_bytes() for name in made}


def test_the_readme_s_tables_are_those_of_the_committed_results():
    blocks = _BLOCK.findall((PROJECT / "README.md").read_text(encoding="utf-8"))
    assert blocks, "the README shows no results"
    for name, text in blocks:
        results = load_results(PROJECT / "docs" / "results" / name / "results.json")
        assert text == to_markdown(results, brief=True)
