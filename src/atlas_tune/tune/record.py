"""Which training a directory holds, so that a killed one is resumed and no two are mixed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory.canonical import canonical_json
from atlas_tune.tune.rows import Row
from atlas_tune.tune.settings import TuneSettings


class TrainingRecord:
    """The file ``training.json``: what a directory's training was asked for, and its figures."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def open(self) -> dict[str, Any] | None:
        """Claim the directory for this training; returns the figures if it is done already.

        Figures without weights are not enough: somebody removed them, so they are made again.
        """
        if not self.path.is_file():
            self._write(None)
            return None
        found = json.loads(self.path.read_text())
        if found["key"] != self.key:
            raise AtlasError(
                f"{self.path.parent} holds another training (other rows, settings, seed or base "
                "model): remove the directory, or choose another one."
            )
        figures: dict[str, Any] | None = found["figures"]
        return figures if any(self.path.parent.glob("*.safetensors")) else None

    def close(self, figures: dict[str, Any]) -> None:
        """Keep the figures: the training is done."""
        self._write(figures)

    def _write(self, figures: dict[str, Any] | None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({"key": self.key, "figures": figures}, indent=1) + "\n")
        os.replace(partial, self.path)


def training_key(rows: Sequence[Row], settings: TuneSettings, seed: int, base: str) -> str:
    """A hash of all that decides the weights."""
    digest = hashlib.sha256(canonical_json([settings.decisive(), seed, base]).encode("ascii"))
    for row in rows:
        spans = [[span.step_id, span.start, span.end, span.weight] for span in row.spans]
        about = [row.trajectory_id, len(row.input_ids), row.full_length, spans]
        digest.update(canonical_json(about).encode("ascii"))
        digest.update(np.array(row.input_ids, dtype="<i8").tobytes())
    return digest.hexdigest()
