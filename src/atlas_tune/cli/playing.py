"""The command with which a person acts in an environment: play."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from atlas_tune.cli.options import Json, Settings, parse_options, tell
from atlas_tune.errors import AtlasError, UsageError, nearest

if TYPE_CHECKING:
    from atlas_tune.agents.person import PersonRun

_COMMANDS = {
    ":help": "these commands",
    ":task": "the instruction and the first observation again",
    ":expert": "what the environment's expert would do now",
    ":think TEXT": "a thought, kept in the run with your next action",
    ":undo": "take the last step back",
    ":quit": "stop here (so does Ctrl-D)",
}
_NAMES = tuple(command.split()[0] for command in _COMMANDS)


def play(
    environment: Annotated[str, typer.Argument(help="The environment, see `atlas-tune envs`.")],
    task: Annotated[str | None, typer.Option(help="The task, by its id.")] = None,
    # Not "test": a saved run may be trained on, and then its task can test nothing any more.
    split: Annotated[
        str | None, typer.Option(help="The split of the task; by default train.")
    ] = None,
    index: Annotated[
        int | None, typer.Option(min=0, help="Which task of the split, from 0 (the default).")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Step limit; by default the environment's own.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="The JSONL file that the run is added to.", dir_okay=False),
    ] = None,
    options: Settings = None,
    as_json: Json = False,
) -> None:
    """Act in an environment yourself; the run can be saved as a trajectory.

    Each line you type is one action. :help lists what else can be typed. Lines may come from a file
    or a pipe as well.
    """
    from atlas_tune.agents.person import PersonRun
    from atlas_tune.environments import make_environment

    parsed = parse_options(options)
    if task is not None and (split is not None or index is not None or parsed):
        raise UsageError("--task names the task alone: leave out --split, --index and --set.")
    if save is not None:
        _check_can_be_added_to(save)
    if task is None:
        task = _task_at(environment, split or "train", index or 0, parsed)
    run = PersonRun(lambda: make_environment(environment), task, max_steps)
    screen = _Screen(as_json)
    try:
        _play(run, screen)
    finally:
        # Whatever ended it, the steps that were taken are not lost.
        is_saved = save is not None and _saved(run, save, screen)
        run.close()
    summary = {
        "environment": run.episode.env.name,
        "task": task,
        "steps": run.steps,
        "score": run.episode.reward,
        "success": run.episode.success,
        "saved": str(save) if is_saved else None,
    }
    if as_json:
        tell(summary, as_json, "")


class _Screen:
    """Shows a run and reads what the person types: in a terminal or through pipes."""

    def __init__(self, as_json: bool) -> None:
        # With --json the standard output is for the result alone.
        self._console = Console(stderr=as_json, highlight=False)
        self._edits = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="backslashreplace")
        if self._edits:
            with contextlib.suppress(ImportError):  # Windows has none.
                import readline  # noqa: F401, its import gives input() a history

    def show(self, text: str, style: str = "") -> None:
        """Print text of any origin, made safe for a terminal."""
        from atlas_tune.trajectory.visible import visible

        self._console.print(escape(visible(text)), style=style or None, soft_wrap=True)

    def ask(self, prompt: str) -> str | None:
        """The next line, without blanks around it; None at the end of the input or on Ctrl-C."""
        try:
            if self._edits:
                return input(prompt).strip()
            self._console.print(escape(prompt), end="", soft_wrap=True)
            line = sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            self.show("")
            return None
        if not sys.stdin.isatty():
            self.show(line.rstrip("\n"))  # A pipe echoes nothing, and the record would lack it.
        return line.strip() if line else None


def _play(run: PersonRun, screen: _Screen) -> None:
    """Let the person act until the episode is over or they stop."""
    screen.show(f"{run.episode.env.name}: {run.episode.task_id}", "bold")
    screen.show(f"{run.episode.env.instruction}\n", "dim")
    screen.show(run.episode.observation)
    screen.show("(:help lists what can be typed besides actions)", "dim")
    thought = ""
    while not run.is_over:
        left = run.max_steps - run.steps
        steps = "1 step left" if left == 1 else f"{left} steps left"
        line = screen.ask(f"\n[score {run.episode.reward:g}, {steps}] > ")
        if line is None or line == ":quit":
            break
        if line.startswith(":think "):
            thought = line.removeprefix(":think ").strip()
            continue
        try:
            answer = _answer(run, line, thought)
        except UsageError as error:
            screen.show(str(error), "yellow")
            continue
        if not line.startswith(":"):
            thought = ""
        screen.show(answer)
    screen.show(_ending(run), "bold")


def _answer(run: PersonRun, line: str, thought: str) -> str:
    """What is shown after a line: the environment's answer, or a command's.

    Raises:
        UsageError: the line is neither an action nor a command; nothing has changed.
    """
    if not line:
        raise UsageError("Type an action, or :help.")
    if not line.startswith(":"):
        return run.act(line, thought)
    if line == ":help":
        return "\n".join(f"{command:<12} {what}" for command, what in _COMMANDS.items())
    if line == ":task":
        return f"{run.episode.env.instruction}\n\n{run.episode.observation}"
    if line == ":undo":
        return run.undo()
    if line == ":expert":
        return _advice(run)
    if line == ":think":
        raise UsageError("Write the thought behind it: :think I need flint.")
    raise UsageError(f"There is no command '{line.split()[0]}': {nearest(line, _NAMES)}")


def _advice(run: PersonRun) -> str:
    from atlas_tune.environments.base import EnvironmentLost, ExpertFailed

    try:
        advice = run.advice()
    except (ExpertFailed, EnvironmentLost) as error:
        return f"The expert does not know: {str(error).rstrip('.')}."
    said = f"The expert thinks: {advice.turn.thought}\nThe expert does: {advice.turn.action}"
    if advice.left_at is None:
        return said
    return (
        f"{said}\n(Since step {advice.left_at} you have gone your own way, which the expert does "
        "not see: this may no longer fit.)"
    )


def _ending(run: PersonRun) -> str:
    """One sentence on how the run ended."""
    steps = "1 step" if run.steps == 1 else f"{run.steps} steps"
    score = f"score {run.episode.reward:g}"
    if run.episode.success:
        return f"Solved in {steps}, {score}."
    if run.episode.ended:
        return f"The episode is over after {steps}, not solved, {score}."
    if run.steps >= run.max_steps:
        return f"The step limit of {run.max_steps} is reached, not solved, {score}."
    return f"Stopped after {steps}, not solved, {score}."


def _task_at(environment: str, split: str, index: int, options: dict[str, object]) -> str:
    """The id of one task of a split.

    Raises:
        UsageError: the split has no task of this index.
    """
    from atlas_tune.environments import make_environment

    tasks = make_environment(environment).tasks(split, **options)
    if index >= len(tasks):
        raise UsageError(
            f"{environment} has {len(tasks)} tasks in split '{split}', so --index goes from 0 to "
            f"{len(tasks) - 1}, not {index}."
            if tasks
            else f"{environment} has no such task in split '{split}': widen the options."
        )
    return tasks[index]


def _check_can_be_added_to(path: Path) -> None:
    """Check, before an hour of play, that the run can be added to a file.

    Raises:
        UsageError: it is not a JSONL file by its ending.
        AtlasError: it holds something else than trajectories, or ends inside a line.
    """
    from atlas_tune.trajectory.quarantine import BadRecord
    from atlas_tune.trajectory.store import read_trajectories

    if path.suffix != ".jsonl":
        raise UsageError(f"--save adds a line to a JSONL file: give {path.name} the ending .jsonl.")
    if not path.is_file():
        return
    try:
        for _ in read_trajectories(path):
            pass
    except BadRecord as error:
        raise AtlasError(
            f"{error}. A run can only be added to a file of trajectories: name another one."
        ) from error
    # Adding cuts off what looks like half a line, which here may be somebody's last run.
    if path.read_bytes()[-1:] not in (b"", b"\n"):
        raise AtlasError(f"{path} does not end with a line break: add one, or name another file.")


def _saved(run: PersonRun, path: Path, screen: _Screen) -> bool:
    """Add the run to a file; a run without a step has nothing to save."""
    from atlas_tune.trajectory import dump_trajectory
    from atlas_tune.trajectory.jsonl import append_jsonl

    if not run.actions:
        screen.show(f"No step was taken, so nothing is added to {path}.")
        return False
    append_jsonl(path, [dump_trajectory(run.trajectory())])
    screen.show(f"The run is added to {path}.")
    return True
