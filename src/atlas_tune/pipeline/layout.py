"""Where the files of a run are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The directory of a run, ``runs/<name>``."""

    directory: Path

    @property
    def recipe(self) -> Path:
        """A copy of the recipe."""
        return self.directory / "recipe.yaml"

    @property
    def trajectories(self) -> Path:
        """The training trajectories."""
        return self.directory / "trajectories.jsonl"

    @property
    def quarantine(self) -> Path:
        """Records and tasks that gave no trajectory, with the reason."""
        return self.directory / "quarantine.jsonl"

    @property
    def imported_labels(self) -> Path:
        """The labels that the masks of imported data imply."""
        return self.directory / "imported_labels.jsonl"

    def labels(self, arm: str) -> Path:
        """The labels of an arm's selector."""
        return self.directory / "labels" / f"{arm}.jsonl"

    def journal(self, arm: str) -> Path:
        """The raw answers of an arm's oracle."""
        return self.directory / "labels" / f"{arm}.journal.sqlite"

    @property
    def selector_files(self) -> Path:
        """What selectors keep for themselves, such as reference models; all arms share it."""
        return self.directory / "selector_files"

    def selection(self, arm: str) -> Path:
        """The steps that an arm trains."""
        return self.directory / "selections" / f"{arm}.jsonl"

    def model(self, arm: str, seed: int) -> Path:
        """A tuned model."""
        return self.directory / "models" / arm / str(seed)

    def rollouts(self, arm: str, seed: int | None, environment: str) -> Path:
        """What a model did in an environment; the untuned model has no seed."""
        folder = self.directory / "rollouts" / arm / ("base" if seed is None else str(seed))
        return folder / f"{_in_a_path(environment)}.jsonl"

    def audits(self, arm: str) -> Path:
        """The directory of what was measured of an arm's steps."""
        return self.directory / "audits" / arm

    def audit(self, arm: str, environment: str) -> Path:
        """The directory of what was measured of an arm's steps in one environment."""
        return self.audits(arm) / _in_a_path(environment)

    @property
    def audit_files(self) -> Path:
        """Replays and rollouts from inside runs; the audits of all arms share them."""
        return self.directory / "audit_files"

    @property
    def report(self) -> Path:
        """The directory of the report."""
        return self.directory / "report"


def _in_a_path(environment: str) -> str:
    """An environment's name as a file's: that of a server is a URL.

    >>> _in_a_path("agentgym:webshop@http://127.0.0.1:36001")
    'agentgym-webshop-http-127.0.0.1-36001'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", environment)
