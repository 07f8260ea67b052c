"""The command line: one command per arrow of the design, each a few lines over one function.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some records were quarantined.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import typer

from atlas_tune import __version__
from atlas_tune.cli import (
    auditing,
    benching,
    collecting,
    costing,
    envs,
    exporting,
    importing,
    looking,
    models,
    playing,
    previewing,
    pushing,
    runs,
    selecting,
    serving,
    skills,
    sorting,
    splitting,
    viewing,
)
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.progress import say

app = typer.Typer(
    help="Tune language-model agents on the critical steps of expert trajectories (ATLaS).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "run": runs.run,
    "import": importing.import_,
    "collect": collecting.collect,
    "stats": looking.stats,
    "show": looking.show,
    "validate": looking.validate,
    "filter": sorting.filter_,
    "dedupe": sorting.dedupe,
    "split": splitting.split,
    "select": selecting.select,
    "agree": auditing.agree,
    "audit": auditing.audit,
    "view": viewing.view,
    "preview": previewing.preview,
    "cost": costing.cost,
    "tune": models.tune,
    "push": pushing.push,
    "export": exporting.export,
    "evaluate": models.evaluate,
    "benchmark": benching.benchmark,
    "skills": skills.skills,
    "report": runs.report,
    "envs": envs.envs,
    "play": playing.play,
    "serve-env": serving.serve_env,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)


_INTERRUPTED = 130
"""The exit code of what Ctrl-C has ended: 128 and the number of the signal."""


def _show_version(value: bool) -> None:
    if value:
        print(f"atlas-tune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and context.invoked_subcommand != "tune":
        raise UsageError(
            "torchrun starts several processes, which only `tune` shares out: start this command "
            "without it."
        )


def main() -> None:
    """Run the command line; a user's mistake is one sentence, never a traceback."""
    _write_what_the_terminal_cannot_hold_as_escapes()
    warnings.filterwarnings("ignore", module="transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    # Our own progress is shown; the libraries' bars and advice would drown it.
    for variable, value in (("TQDM_DISABLE", "1"), ("TRANSFORMERS_VERBOSITY", "error")):
        os.environ.setdefault(variable, value)
    try:
        app(prog_name="atlas-tune")
    except UsageError as error:
        _say_error(str(error))
        sys.exit(2)
    except AtlasError as error:
        _say_error(str(error))
        sys.exit(1)
    except OSError as error:
        place = error.filename2 or error.filename
        where, hint = (f"{place}: ", " Check the path and its permissions.") if place else ("", "")
        _say_error(f"{where}{error.strerror or error}.{hint}")
        sys.exit(1)
    except (SystemExit, KeyboardInterrupt) as ended:
        # Typer ends with 130, in silence, when Ctrl-C comes while a command runs.
        if isinstance(ended, SystemExit) and ended.code != _INTERRUPTED:
            raise
        say("Stopped. Run the same command again: it goes on where it was, or starts anew.")
        sys.exit(_INTERRUPTED)


def _write_what_the_terminal_cannot_hold_as_escapes() -> None:
    """A terminal or a file that is not UTF-8 gets ``\\u4e2d`` for a sign that it lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say_error(sentence: str) -> None:
    # Here and not above: most commands read no trajectory. Errors quote what was read.
    from atlas_tune.trajectory.visible import visible

    say(f"Error: {visible(sentence)}")
