"""Measurements that outlive a kill: a benchmark that is started again goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Record = dict[str, Any]
_PLACE = Path(__file__).parents[1] / "runs" / "benchmarks"


class Kept:
    """What was measured under one setting: one JSON line a measurement, on disk at once."""

    def __init__(self, benchmark: str, setting: Any) -> None:
        """
        Args:
            benchmark: begins the file's name.
            setting: JSON values; what was measured under another one is another file.
        """
        digest = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()
        self.path = _PLACE / f"{benchmark}-{digest[:12]}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self.path.read_text().split("\n")[:-1] if self.path.exists() else []
        # A kill can leave half a line, which the next one must not be written behind.
        self.path.write_text("".join(f"{line}\n" for line in whole))
        self.done: list[Record] = [json.loads(line) for line in whole]

    def measured(self, key: Record, measure: Callable[[], Record]) -> Record:
        """The measurement of this key: from the file, or made now and written there."""
        for one in self.done:
            if all(one[name] == value for name, value in key.items()):
                return one
        found = {**key, **measure()}
        with self.path.open("a") as file:
            file.write(json.dumps(found) + "\n")
        self.done.append(found)
        shown = {name: value for name, value in found.items() if name != "said"}
        print(json.dumps(shown), flush=True)
        return found
