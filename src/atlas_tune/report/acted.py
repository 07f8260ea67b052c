"""What agents do, trained and let loose: a table of words, the same on the page and in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from atlas_tune.report import wording
from atlas_tune.report.results import Results

TITLE = "What the models do"
CAPTION = (
    "Actions by their first word, or by the tool that is called: of the steps that an arm trains "
    "in runs of this kind (of an arm that is drawn for each seed, the first draw), and of the "
    "turns that its models take, over all seeds."
)
HEAD = ("environment", "arm", "trained steps", "turns taken")
_MOST = 5
"""Words in a cell; the others are added up."""


def acted_rows(results: Results) -> list[list[str]]:
    """The rows, without the head."""
    return [
        [one.environment, one.arm, _shares(one.trained), _shares(one.taken)]
        for one in results.actions
    ]


def _shares(counts: Mapping[str, int]) -> str:
    """
    >>> _shares({"craft": 6, "get": 94}), _shares({})
    ('get 94%, craft 6%', '–')
    >>> _shares(dict(zip("abcdefg", (50, 20, 10, 10, 5, 4, 1))))
    'a 50%, b 20%, c 10%, d 10%, e 5%, others 5%'
    """
    total = sum(counts.values())
    if not total:
        return wording.ABSENT
    first = Counter(counts).most_common(_MOST)
    rest = total - sum(count for _, count in first)
    named = first + ([("others", rest)] if rest else [])
    return ", ".join(f"{word} {_percent(count / total)}" for word, count in named)


def _percent(share: float) -> str:
    """
    >>> _percent(0.004), _percent(0.94)
    ('<1%', '94%')
    """
    return f"{share:.0%}" if share >= 0.005 else "<1%"
