"""Asking a model the questions of lm-evaluation-harness (the extra ``skills``).

A task is a name that the harness knows (its data must be in the datasets cache, or the Hub be in
reach), or a task file of one's own: YAML, with data files beside it, fully offline.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas_tune.checked import parse_yaml
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.evaluate.skills import SkillScores, scores_of

_FILES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class SkillTasks:
    """Tasks as the harness takes them: names, or the settings of a task file."""

    asked: tuple[str | dict[str, Any], ...]

    @property
    def needs_known(self) -> bool:
        """Whether one of them is a name that the harness has to look up."""
        return any(isinstance(one, str) for one in self.asked)


def skill_tasks(names: Sequence[str]) -> SkillTasks:
    """The tasks of names and files.

    Relative data files are taken from the task file's folder, wherever the command runs.

    Raises:
        UsageError: a task file is missing, is not YAML, or names no task.
    """
    return SkillTasks(tuple(_task(name) for name in names))


def check_harness() -> None:
    """Raise an AtlasError that says what to install where lm-evaluation-harness is missing."""
    if importlib.util.find_spec("lm_eval") is None:
        raise AtlasError(
            "Base skills are measured with lm-evaluation-harness, which is not installed: "
            "pip install 'atlas-tune[skills]'."
        )


def ask(
    model: str,
    tasks: SkillTasks,
    *,
    limit: int | None = None,
    batch_size: int = 8,
    precision: str = "float32",
    chat: bool = False,
) -> dict[str, SkillScores]:
    """A model's scores on tasks, by the task's name.

    Args:
        model: a hub id, a directory or a GGUF file.
        tasks: what to ask.
        limit: only the first questions of each task.
        batch_size: questions at once.
        precision: a torch dtype's name.
        chat: put each question into the model's chat template.

    Raises:
        AtlasError: the harness or the model cannot be had, or it refuses a task.
    """
    check_harness()
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from atlas_tune.agents.local_model import load_model, load_tokenizer

    loaded = load_model(model, getattr(torch, precision))
    if torch.cuda.is_available():
        loaded = loaded.to("cuda")  # type: ignore[arg-type]
    asked = HFLM(pretrained=loaded, tokenizer=load_tokenizer(model), batch_size=batch_size)
    try:
        found = simple_evaluate(
            model=asked,
            tasks=list(tasks.asked),
            limit=limit,
            bootstrap_iters=0,  # Its standard errors are of one model; ours are of the pair.
            apply_chat_template=chat,
            task_manager=TaskManager(include_defaults=tasks.needs_known),
        )
    # The harness and datasets raise errors of many kinds over a task that is not right.
    except Exception as error:
        raise AtlasError(
            f"lm-evaluation-harness cannot run these tasks ({type(error).__name__}: {error}). "
            "Check the names, the task files and their data files; a task that it brings needs "
            "its data in the datasets cache, or the Hub."
        ) from error
    return {
        task: scores_of(task, samples, found["higher_is_better"].get(task, {}))
        for task, samples in found["samples"].items()
    }


def _task(name: str) -> str | dict[str, Any]:
    path = Path(name)
    if path.suffix not in _FILES:
        if path.exists():
            raise UsageError(f"{path} is no task file: the harness's end in .yaml.")
        return name
    if not path.is_file():
        raise UsageError(f"There is no task file {path}. Check the path.")
    try:
        settings = parse_yaml(path.read_text(encoding="utf-8"))
    except AtlasError as error:
        raise UsageError(
            f"{path}, {error} (A task file with !function or include cannot be read here: write "
            "it out.)"
        ) from error
    if not isinstance(settings, dict) or not isinstance(settings.get("task"), str):
        raise UsageError(f"{path} is no task of lm-evaluation-harness: it needs the key 'task'.")
    files = (settings.get("dataset_kwargs") or {}).get("data_files")
    if files is not None:
        here = _from_folder(files, path.parent)
        settings["dataset_kwargs"] = {**settings["dataset_kwargs"], "data_files": here}
    return settings


def _from_folder(files: Any, folder: Path) -> Any:
    """Data files, as one name, a list or by split, relative to a folder.

    Raises:
        UsageError: a file is not there.
    """
    if isinstance(files, dict):
        return {split: _from_folder(some, folder) for split, some in files.items()}
    if isinstance(files, list):
        return [_from_folder(one, folder) for one in files]
    if "://" in str(files):
        return files
    path = folder / str(files)
    if not any(sign in str(files) for sign in "*?[") and not path.is_file():
        raise UsageError(f"The task's data file {path} is not there. Check data_files.")
    return os.path.abspath(path)
