"""What a run has done: per stage, what it was made from and what it made.

A stage has a *key*, the hash of its settings and of the content of its inputs. It is skipped
while its key is unchanged and its outputs are still what it wrote. A stage that was killed has
left its key without outputs: it goes on with what is there. A stage whose key has changed starts
from nothing, but for outputs to which people may add: labels name what made them, so those that
another setting made are not taken for its own, and corrections are not lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlas_tune.errors import AtlasError
from atlas_tune.trajectory.canonical import canonical_json

if TYPE_CHECKING:
    from atlas_tune.pipeline.stage import Stage


class State(StrEnum):
    """How far a stage is."""

    DONE = "done"
    BEGUN = "begun"
    """It was killed, and goes on with what is there."""
    CHANGED = "changed"
    """It was done with other settings or inputs, or its outputs are not what they were."""
    NEW = "to do"


class Manifest:
    """The file ``manifest.json`` of a run directory."""

    def __init__(self, directory: Path, circumstances: dict[str, Any] | None = None) -> None:
        """``circumstances`` (command, machine) are kept with every stage that runs under them.

        Raises:
            AtlasError: the file is there and is not a manifest.
        """
        self.directory = directory
        self.circumstances = circumstances or {}
        self.path = directory / "manifest.json"
        self._record: dict[str, Any] = {"stages": {}, "hashes": {}}
        if self.path.is_file():
            try:
                self._record = json.loads(self.path.read_text())
            except ValueError as error:
                raise AtlasError(
                    f"{self.path} is not JSON ({error}): remove it, and the run starts anew."
                ) from error

    def do(self, stage: Stage) -> bool:
        """Run a stage unless it is done; returns whether it ran.

        An output of a finished stage that is no longer what the stage wrote is removed and made
        again, unless it is one to which people may add. A stage whose key has changed starts
        from nothing else.
        """
        key = self._key(stage)
        entry = self._record["stages"].get(stage.name, {})
        if entry.get("key") == key and "outputs" in entry and "again" not in entry:
            found = self._found(stage)
            if found == entry["outputs"]:
                return False
            for path in stage.outputs:
                name = self._name(path)
                if path not in stage.appended and found.get(name) != entry["outputs"].get(name):
                    remove(path)
        if entry.get("key") != key:
            for path in stage.outputs:
                if path not in stage.appended:
                    remove(path)
        self._record["stages"][stage.name] = {"key": key, "like": list(stage.like)}
        self._save()
        started = time.monotonic()
        returned = stage.run()
        self._record["stages"][stage.name] |= {
            "outputs": self._found(stage),
            "returned": returned,
            "seconds": time.monotonic() - started,
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **self.circumstances,
        }
        self._save()
        return True

    def state(self, stage: Stage) -> State:
        """How far a stage is; nothing is changed.

        A stage that comes after one that is not done is as new: what decides it is not known yet.
        """
        entry = self._record["stages"].get(stage.name)
        if entry is None or any(not self.finished(name) for name in stage.after):
            return State.NEW
        if any(not path.exists() for path in stage.inputs) or entry["key"] != self._key(stage):
            return State.CHANGED
        if "outputs" not in entry or "again" in entry:
            return State.BEGUN
        return State.DONE if self._found(stage) == entry["outputs"] else State.CHANGED

    def holds(self, stage: Stage) -> bool:
        """Whether what a stage has left is what it makes with its settings and inputs of now."""
        entry = self._record["stages"].get(stage.name, {})
        return (
            "outputs" in entry
            and all(path.exists() for path in stage.inputs)
            and entry["key"] == self._key(stage)
            and self._found(stage) == entry["outputs"]
        )

    def finished(self, name: str) -> bool:
        """Whether a stage of this name came to its end, with whatever settings."""
        return "outputs" in self._record["stages"].get(name, {})

    def _key(self, stage: Stage) -> str:
        inputs = [self.content_hash(path) for path in stage.inputs]
        text = canonical_json([stage.settings(), inputs])
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def _found(self, stage: Stage) -> dict[str, str]:
        return {self._name(p): self.content_hash(p) for p in stage.outputs if p.exists()}

    def thin(self, stage: Stage, pattern: str) -> None:
        """Remove files of a finished stage's output directories; the stage stays done."""
        for directory in stage.outputs:
            for path in directory.rglob(pattern):
                path.unlink()
        entry = self._record["stages"][stage.name]
        entry |= {"outputs": self._found(stage), "thinned": True}
        self._save()

    def was_thinned(self, name: str) -> bool:
        """Whether a stage's output was removed in part after it was done."""
        return bool(self._record["stages"].get(name, {}).get("thinned"))

    def forget(self, name: str) -> None:
        """Let a stage start from nothing next time."""
        self._record["stages"].pop(name)
        self._save()

    def seconds_like(self, word: str) -> list[float]:
        """What finished stages took that have this word in ``like``."""
        return [
            entry["seconds"]
            for entry in self._record["stages"].values()
            if word in entry.get("like", ()) and "seconds" in entry
        ]

    def reopen(self, name: str) -> None:
        """Let a stage that could not do all of its work run again next time, on what is there."""
        self._record["stages"][name]["again"] = True
        self._save()

    def latest(self) -> dict[str, Any]:
        """The record of the stage that finished last."""
        stages = self._record["stages"].values()
        found: dict[str, Any] = max(stages, key=lambda entry: entry.get("finished_at", ""))
        return found

    def machines(self) -> list[dict[str, str]]:
        """The machines on which stages were done, each once."""
        found: list[dict[str, str]] = []
        for entry in self._record["stages"].values():
            if (machine := entry.get("machine")) and machine not in found:
                found.append(machine)
        return found

    def returned(self, name: str) -> Any:
        """What a finished stage returned, as JSON values."""
        return self._record["stages"][name]["returned"]

    def content_hash(self, path: Path) -> str:
        """SHA-256 of a file, or of all files of a directory with their names.

        Hashes are remembered by size and time of change, so that large weights are read once.
        """
        if path.is_dir():
            parts = [
                [str(file.relative_to(path)), self.content_hash(file)]
                for file in sorted(path.rglob("*"))
                if file.is_file()
            ]
            return hashlib.sha256(canonical_json(parts).encode("ascii")).hexdigest()
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        known = self._record["hashes"].get(str(path.absolute()))
        if known is not None and known[0] == stamp:
            return str(known[1])
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        self._record["hashes"][str(path.absolute())] = [stamp, digest]
        return digest

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.directory))

    def _save(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self._record, indent=1, sort_keys=True))
        os.replace(partial, self.path)


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
