"""What agree and audit tell beside their figures: as JSON, and what could not be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from atlas_tune.progress import say

if TYPE_CHECKING:
    from atlas_tune.select.auditing.audit import Audit
    from atlas_tune.select.auditing.ratings import Compared


def bootstrap_json(draws: int, seed: int) -> dict[str, Any]:
    """How intervals were drawn."""
    return {"clusters": "trajectories", "draws": draws, "seed": seed, "confidence": 0.95}


def left_json(compared: Compared) -> dict[str, Any]:
    """What could not be compared, as counts."""
    return {
        "trajectories_without": [
            {"rater": name, "trajectories": count}
            for name, count in zip(compared.raters, compared.without, strict=True)
        ],
        "trajectories_of_one_rater": compared.alone,
        "trajectories_of_unknown_steps": compared.steps_unknown,
        "trajectories_not_in_runs": compared.not_in_runs,
        "steps_of_one_rater": compared.steps_unrated,
    }


def tell_left(compared: Compared) -> None:
    """Say what could not be compared."""
    for name, count in zip(compared.raters, compared.without, strict=True):
        if count:
            say(f"{count:,} trajectories are not rated by {name}.")
    for count, why in (
        (compared.alone, "trajectories are rated by fewer than two: not compared"),
        (compared.steps_unknown, "trajectories are known by selections only: name --runs"),
        (compared.not_in_runs, "rated trajectories are not in the runs: not compared"),
        (compared.steps_unrated, "steps are rated by fewer than two: not compared"),
    ):
        if count:
            say(f"{count:,} {why}.")


def several(parts: Mapping[str, Any]) -> Mapping[str, Any]:
    """The environments, where there are several; one alone is all there is."""
    return parts if len(parts) > 1 else {}


def audit_json(
    found: Audit, compared: Compared, polarity: str, how: dict[str, Any]
) -> dict[str, Any]:
    """An audit as one JSON object."""
    return {
        "raters": list(compared.raters),
        "polarity": polarity,
        **_scores_json(asdict(found.whole), polarity),
        "environments": {
            name: _scores_json(asdict(part), polarity) for name, part in found.environments.items()
        },
        "selected_kinds": {kind: asdict(part) for kind, part in found.selected_kinds.items()},
        "marked_kinds": {kind: asdict(part) for kind, part in found.marked_kinds.items()},
        "not_compared": left_json(compared),
        "bootstrap": how,
    }


def _scores_json(scores: dict[str, Any], polarity: str) -> dict[str, Any]:
    """Of errors only the recall is told: finding them is not what a selection is made for."""
    if polarity == "error":
        scores["recall_of_errors"] = scores.pop("recall")
        del scores["precision"], scores["f1"]
    return scores
