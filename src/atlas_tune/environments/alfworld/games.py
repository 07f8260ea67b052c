"""ALFWorld's games: where they lie on this machine, and what we keep of them.

The games of ``json_2.1.1`` are 5,234 files of 86 kB, most of which repeats the rules. What differs
(the PDDL problem and the sentence of the task) is packed once into a zip file in the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from atlas_tune.environments.alfworld.problem import Problem, read_problem
from atlas_tune.errors import AtlasError
from atlas_tune.places import cache_directory, data_directory
from atlas_tune.progress import say
from atlas_tune.replacing import replacing
from atlas_tune.trajectory.compression import DAMAGE, open_bytes

TREE = "json_2.1.1"
GAME = "game.tw-pddl"
ARCHIVE = Path("alfworld", "games_all_5234.tar.xz")
RUNS = Path("alfworld", "gt_traj_train.jsonl.xz")
"""The recorded expert's runs, beside the archive in the data directory."""

_TASK = re.compile(r'"(Your task is to: [^"]*)"')
_INDEX = "index.json"
_FORM = 1
"""Of what a pack holds; a pack of another form is made again."""
_RULES = {
    # SHA-256 of the PDDL domain without comments and blanks: with SinkType as a place for cleaning
    # (no game has one), without, and with the action "help" of alfworld 0.4.
    "0c42dbe9f67ce2474749f02dd32a40bcc41ef44e8ed28bcedf4526fb02078fec",
    "b0b8259a4e11c9f45e91c181404bde4c2c936ad872fdc4d368c7e63094eaafac",
    "915e118f4f32b4d826bf53c99e860dd85831afffb1a31ad333f063ce005b7122",
}


class Games:
    """The solvable games of one source; a game's path, ``train/<task>/<trial>``, is its task id."""

    def __init__(self, source: Path) -> None:
        """``source`` is what :func:`find_source` finds. Nothing is read before it is needed."""
        self.source = source

    @property
    def tasks(self) -> dict[str, str]:
        """The sentence of each game's task, by task id, sorted."""
        return _index(self._pack())

    @property
    def is_packed(self) -> bool:
        """Whether the pack is made, so that the tasks are listed at once."""
        return _pack_of(self.source).is_file()

    def problem(self, task_id: str) -> Problem:
        """The start and the goal of a game.

        Raises:
            KeyError: there is no such game.
        """
        return _problem(self._pack(), task_id)

    def _pack(self) -> Path:
        return _packed(self.source)


def find_source() -> Path:
    """The directory ``json_2.1.1`` under ALFWORLD_DATA, else the archive in the data directory.

    Raises:
        AtlasError: there are no games; the message says where to put them.
    """
    named = os.environ.get("ALFWORLD_DATA")
    if named:
        for tree in (Path(named).expanduser() / TREE, Path(named).expanduser()):
            if (tree / "train").is_dir() or (tree / "valid_unseen").is_dir():
                return tree
        raise AtlasError(
            f"ALFWORLD_DATA is {named}, but no games are there: it must be the directory that "
            f"holds {TREE}/train, as alfworld-download makes it."
        )
    archive = data_directory() / ARCHIVE
    if archive.is_file():
        return archive
    raise AtlasError(
        "There are no ALFWorld games: neither ALFWORLD_DATA nor ATLAS_TUNE_DATA leads to any. Set "
        f"ALFWORLD_DATA to the directory that holds {TREE} (pip install alfworld; "
        f"alfworld-download), or ATLAS_TUNE_DATA to the one that holds {ARCHIVE}."
    )


@cache
def _packed(source: Path) -> Path:
    """The pack of a source, made at first use."""
    pack = _pack_of(source)
    if pack.is_file():
        return pack
    pack.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{pack}.lock"):
        if not pack.is_file():  # Another process may have made it while we waited.
            say(f"Packing ALFWorld's games once (about 20 seconds) into {pack}")
            with replacing(pack) as partial:
                _make_pack(source, partial)
    return pack


def _pack_of(source: Path) -> Path:
    """Where the pack of a source lies, once it is made."""
    digest = _digest_of_archive(source) if source.is_file() else _digest_of_tree(source)
    return cache_directory() / "alfworld" / f"games-{digest[:16]}-{_FORM}.zip"


def _make_pack(source: Path, pack: Path) -> None:
    tasks: dict[str, str] = {}
    other_rules = 0
    with zipfile.ZipFile(pack, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
        for task_id, text in _games_of(source):
            game = _read_game(text, f"{source}: {task_id}")
            if not game.get("solvable"):  # No plan wins these; ALFWorld leaves them out too.
                continue
            if not _has_our_rules(game):
                other_rules += 1
                continue
            tasks[task_id] = _task_of(game, f"{source}: {task_id}")
            packed.writestr(task_id, game["pddl_problem"])
        packed.writestr(_INDEX, json.dumps(dict(sorted(tasks.items()))))
    if other_rules:
        say(f"{other_rules} games have other rules than {TREE}'s and are left out.")
    if not tasks:
        raise AtlasError(f"{source} holds no ALFWorld game that can be solved.")


def _games_of(source: Path) -> Iterator[tuple[str, bytes]]:
    """Task id and file of each game of an archive or a directory."""
    if source.is_dir():
        for path in _files_of_tree(source):
            yield path.parent.relative_to(source).as_posix(), path.read_bytes()
        return
    try:
        with tarfile.open(fileobj=open_bytes(source), mode="r|") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.name.endswith(GAME) else None
                if stream is not None:
                    task_id = member.name.partition(f"{TREE}/")[2].removesuffix(f"/{GAME}")
                    yield task_id, stream.read()
    except (tarfile.TarError, *DAMAGE) as error:
        raise AtlasError(f"{source} cannot be read as an archive of games: {error}.") from error


def _read_game(text: bytes, where: str) -> dict[str, Any]:
    try:
        game = json.loads(text)
    except ValueError as error:
        raise AtlasError(f"{where} cannot be read as JSON: {error}. Get the game again.") from error
    if not isinstance(game, dict) or not {"pddl_problem", "grammar"} <= game.keys():
        raise AtlasError(f"{where} is no ALFWorld game: it lacks 'pddl_problem' or 'grammar'.")
    return game


def _task_of(game: dict[str, Any], where: str) -> str:
    found = _TASK.search(game["grammar"])
    if found is None:
        raise AtlasError(f"{where} does not say what the task is ('Your task is to: …').")
    return found.group(1)


def _has_our_rules(game: dict[str, Any]) -> bool:
    """Whether a game is played by the rules that we know; one that brings no rules is."""
    domain = game.get("pddl_domain")
    return domain is None or _digest_of_rules(domain) in _RULES


@lru_cache(maxsize=8)
def _digest_of_rules(domain: str) -> str:
    # Kept, because thousands of games bring the same text.
    words = re.findall(r"[()]|[^\s()]+", re.sub(r";[^\n]*", "", domain).lower())
    return hashlib.sha256(" ".join(words).encode()).hexdigest()


def _digest_of_archive(source: Path) -> str:
    with source.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digest_of_tree(source: Path) -> str:
    """Over names, sizes and times: to read half a gigabyte at each start would take too long."""
    told = [
        f"{path.relative_to(source)} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in _files_of_tree(source)
    ]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _files_of_tree(source: Path) -> list[Path]:
    return sorted(source.glob(f"*/*/*/{GAME}"))


@lru_cache(maxsize=64)
def _problem(pack: Path, task_id: str) -> Problem:
    # Replays come back to one game many times over, each time to its start.
    return read_problem(_opened(pack, os.getpid()).read(task_id).decode())


@cache
def _index(pack: Path) -> dict[str, str]:
    tasks: dict[str, str] = json.loads(_opened(pack, os.getpid()).read(_INDEX))
    return tasks


@cache
def _opened(pack: Path, process: int) -> zipfile.ZipFile:
    """The pack, opened once in each process: after a fork two would share one place in the file."""
    return zipfile.ZipFile(pack)
