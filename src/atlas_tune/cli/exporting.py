"""The command that writes trajectories and selections as other tools read them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas_tune.cli.options import (
    Json,
    Runs,
    beside,
    keep_rejected,
    read_runs,
    read_selection,
    tell,
    tell_rejected,
)
from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.progress import say

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from atlas_tune.trajectory import Selection, Trajectory
    from atlas_tune.trajectory.exports.prompt_completion import Rendering
    from atlas_tune.trajectory.exports.stage import Exported
    from atlas_tune.trajectory.exports.targets import Target
    from atlas_tune.trajectory.exports.templates import Template, Write
    from atlas_tune.trajectory.quarantine import Rejected
    from atlas_tune.tune.tokenised import LeftOut


def export(
    runs: Runs,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The JSONL file to write; for tokenised rows a .parquet file or a directory.",
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="TOOL", help="Who reads it; leave it out for the list."),
    ] = None,
    selection: Annotated[
        Path | None,
        typer.Option(help="The selection; all steps carry loss without one.", dir_okay=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Whose tokenizer counts and renders: a hub id or a directory."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="For trl and nemo-automodel: chatml, llama3, qwen2.5 or smollm2."),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Keep what follows the last supervised step.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write trajectories for another trainer, loss on the selected steps only.

    Prints the configuration that the trainer needs.
    """
    from atlas_tune.trajectory.exports.targets import TARGETS, make_target

    if to is None:
        listed = "\n".join(f"  {target.name:<24}{target.about}" for target in TARGETS.values())
        raise UsageError(f"Name with --to who reads the export:\n{listed}")
    target = make_target(to)
    _check_options(target, model, template, whole, output)
    tokenizer = _load(model)
    chosen_template = _choose_template(target, template, tokenizer, model)
    trajectories, rejected = read_runs(runs)
    selections = None
    if selection is None:
        say("No --selection: every step of the agent carries loss.")
        _tell_of_a_mask(runs)
    else:
        selections, strays = read_selection(selection, runs, trajectories)
        if weighted := sum(one.weights is not None for one in selections.values()):
            say(f"{weighted} selections weigh their steps; no format does, so all count alike.")
        rejected += strays
    if target.kind == "tokens":
        if tokenizer is None:
            raise AtlasError(f"{to} needs a tokenizer.")  # _check_options has asked for it.
        summary, refused = _tokens(runs, trajectories, selections, target, tokenizer, output)
    else:
        rendering = _rendering(tokenizer, chosen_template)
        summary, refused = _rows(
            runs, trajectories, selections, target, rendering, chosen_template, whole, output
        )
    summary = {"output": str(output), "to": to, **summary}
    summary["left_out"] = len(trajectories) - summary["trajectories"]
    _tell(summary, target, model, chosen_template, tokenizer is not None, output, as_json)
    keep_rejected(output, [*rejected, *refused])


def _tell_of_a_mask(runs: Path) -> None:
    """Say so where the data came with a mask, which an export without a selection ignores."""
    from atlas_tune.trajectory.formats import IMPORT
    from atlas_tune.trajectory.sidecars import labels_beside
    from atlas_tune.trajectory.store import read_labels

    sidecar = labels_beside(runs)
    # A bad line of labels is no reason not to export: nothing of them is used.
    with contextlib.suppress(AtlasError):
        if sidecar.is_file() and any(label.source == IMPORT for label in read_labels(sidecar)):
            say(
                f"But a mask came with the data ({sidecar}): select --selector import makes its "
                "selection."
            )


def _check_options(
    target: Target, model: str | None, template: str | None, whole: bool, output: Path
) -> None:
    """Refuse options that do not fit the target.

    Raises:
        UsageError: one is missing, or one would be ignored.
    """
    if target.model and model is None:
        raise UsageError(f"{target.name} is given text or tokens of a model: name it with --model.")
    if target.template and model is None and template is None:
        raise UsageError(
            f"{target.name} obeys the flags through a chat template: name it with --template "
            "(chatml, llama3, qwen2.5, smollm2), or name the --model, which tells it."
        )
    if template is not None and not target.template:
        raise UsageError(
            f"--template is for trl and nemo-automodel; {target.name} has no use for it."
        )
    if whole and target.name in ("ms-swift", "openai"):
        raise UsageError(
            f"--whole would go wrong with {target.name}, which trains the end of the last turn or "
            "wants it to be the agent's: leave it out."
        )
    if target.bare and output.suffix:
        raise UsageError(f"{target.name} is a directory: name one with -o, not {output}.")
    if target.kind != "tokens" and output.is_dir():
        raise UsageError(f"{output} is a directory: name with -o the JSONL file to write.")
    if whole and target.kind in ("steps", "tokens"):
        raise UsageError(f"--whole is for exports of messages; a row of {target.name} ends anyway.")


def _load(model: str | None) -> PreTrainedTokenizerBase | None:
    if model is None:
        return None
    from atlas_tune.agents.local_model import load_tokenizer

    return load_tokenizer(model)


def _choose_template(
    target: Target, name: str | None, tokenizer: PreTrainedTokenizerBase | None, model: str | None
) -> Template | None:
    """The template of ours that the target is given: the one named, or the model's own twin.

    Raises:
        UsageError: there is none of that name, or none that writes what the model's own writes.
    """
    from atlas_tune.trajectory.exports.templates import make_template, template_like

    if not target.template:
        return None
    like = None
    if tokenizer is not None and tokenizer.chat_template:
        like = template_like(_write(tokenizer), lambda ours: _write(tokenizer, ours))
    if name is not None:
        named = make_template(name)
        if tokenizer is not None and tokenizer.chat_template and named != like:
            say(f"{name} writes other text than the chat template of {model}: serve with {name}.")
        return named
    if like is None:
        raise UsageError(
            f"No template of ours writes what the chat template of {model} writes, so the flags "
            "would not be obeyed in its own words: export with --to trl-tokenised, or name "
            "another --template."
        )
    return like


def _write(tokenizer: PreTrainedTokenizerBase, template: Template | None = None) -> Write:
    """What writes messages under the tokenizer's chat template, or under one of ours."""
    from atlas_tune.agents.chat_template import render_text

    used = tokenizer
    if template is not None:
        used = copy.copy(tokenizer)
        used.chat_template = template.text
    return lambda messages, tools, speak: render_text(
        used, messages, generation_prompt=speak, tools=tools
    )


def _rendering(
    tokenizer: PreTrainedTokenizerBase | None, template: Template | None
) -> Rendering | None:
    if tokenizer is None:
        return None
    from atlas_tune.trajectory.exports.prompt_completion import Rendering

    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return Rendering(
        _write(tokenizer, template),
        lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
        frozenset(added | set(tokenizer.all_special_tokens)),
        tokenizer.eos_token,
    )


def _rows(
    runs: Path,
    trajectories: Sequence[Trajectory],
    selections: Mapping[str, Selection] | None,
    target: Target,
    rendering: Rendering | None,
    template: Template | None,
    whole: bool,
    output: Path,
) -> tuple[dict[str, Any], list[Rejected]]:
    """Write rows of messages or of steps; the figures, and what the target cannot hold."""
    from atlas_tune.trajectory.exports.dialects import DIALECTS
    from atlas_tune.trajectory.exports.rows import write_rows
    from atlas_tune.trajectory.exports.stage import export_rows
    from atlas_tune.trajectory.quarantine import Rejected

    refused: list[Rejected] = []
    done: Exported = export_rows(
        trajectories,
        selections,
        target,
        lambda one, why: refused.append(Rejected(str(runs), 0, 0, why, one.trajectory_id)),
        rendering=rendering,
        template=template,
        whole=whole,
    )
    tell_rejected(refused)
    if not done.rows:
        raise AtlasError(
            f"{target.name} can hold none of the trajectories: nothing is written. "
            f"{done.unselected} of them have no selected step, {len(refused)} were refused."
        )
    arrow = target.name not in DIALECTS or DIALECTS[target.name].arrow
    write_rows(output, done.rows, arrow=arrow and target.kind != "agentgym")
    figures: dict[str, Any] = {
        "rows": len(done.rows),
        "trajectories": done.trajectories,
        "steps": done.steps,
        "unselected": done.unselected,
        "longest_row": done.longest,
    }
    if target.kind == "steps":
        figures["overhead"] = round(done.overhead.factor, 3)
        figures["overhead_in"] = "characters" if rendering is None else "tokens"
    if template is not None:
        path = beside(output, f".{template.name}.jinja")
        path.write_text(template.text, encoding="utf-8")
        figures["template"] = str(path)
    return figures, refused


def _tokens(
    runs: Path,
    trajectories: Sequence[Trajectory],
    selections: Mapping[str, Selection] | None,
    target: Target,
    tokenizer: PreTrainedTokenizerBase,
    output: Path,
) -> tuple[dict[str, Any], list[Rejected]]:
    """Write token ids and labels; the figures, and what could not be masked."""
    from atlas_tune.trajectory.quarantine import Rejected
    from atlas_tune.tune.tokenised import write_tokenised

    done = write_tokenised(trajectories, selections, tokenizer, output, with_ids=not target.bare)
    refused = [
        Rejected(str(runs), 0, 0, _without_id(one), one.trajectory_id) for one in done.left_out
    ]
    tell_rejected(refused)
    figures = {
        "rows": done.rows,
        "trajectories": done.trajectories,
        "steps": done.steps,
        "unselected": done.unselected,
        "longest_row": done.longest_row,
        "tokens": done.tokens,
        "supervised_tokens": done.supervised_tokens,
    }
    return figures, refused


def _without_id(left: LeftOut) -> str:
    """The steps and the reason; the id of the trajectory stands before them."""
    reason = left.reason.removeprefix(f"Trajectory {left.trajectory_id}").lstrip(",: ")
    return f"steps {', '.join(map(str, left.step_ids))}: {reason}"


def _tell(
    summary: dict[str, Any],
    target: Target,
    model: str | None,
    template: Template | None,
    exact: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Print the figures and the configuration of the target."""
    from atlas_tune.trajectory.exports.configs import Facts, config_lines

    facts = Facts(
        output,
        summary["longest_row"],
        exact,
        Path(summary["template"]) if template is not None else None,
        model,
    )
    summary["config"] = config_lines(target.name, facts)
    if summary["unselected"]:
        say(f"{summary['unselected']} trajectories have no selected step and are left out.")
    # Comments, so that the output as it is can be a script or a recipe of the target.
    sentence = "# {trajectories} trajectories in {output}; {left_out} left out\n"
    if "overhead" in summary:
        sentence += (
            "# {rows} rows, {overhead} times the {overhead_in} of one masked row per trajectory\n"
        )
    if not as_json:
        from atlas_tune.trajectory.visible import one_line

        summary["output"] = one_line(summary["output"])  # A comment ends with its line.
    tell(summary, as_json, sentence + "{config}")
