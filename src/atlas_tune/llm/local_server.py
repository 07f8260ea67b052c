"""A chat server on this machine for one GGUF file: llama.cpp's own, in a prebuilt package.

    python -m atlas_tune.llm.local_server MODEL.gguf --port 8080

It speaks OpenAI's ``/v1/chat/completions`` and decodes under JSON schemas, so it serves the oracle
as any other server does. The package is ``xllamacpp``: ``pip install 'atlas-tune[local]'``.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas_tune.errors import AtlasError, UsageError

if TYPE_CHECKING:
    from xllamacpp import Server

_FEW_LOGS = 2
"""llama.cpp's level for warnings and errors."""


def start_server(
    model: Path,
    *,
    port: int = 0,
    context: int = 0,
    slots: int = 1,
    threads: int | None = None,
    name: str | None = None,
) -> Server:
    """A server that listens on 127.0.0.1 until it is let go of or the process ends.

    Args:
        model: a GGUF file.
        port: 0 takes a free one; ``listening_address`` of the server says which.
        context: tokens that a question and its answer may have together; 0 is what the model was
            made for.
        slots: questions that are answered at once, each with a context of its own.
        threads: that compute; None takes one for each core that this process may use.
        name: what the model is called in answers; the file's name without its ending.

    Raises:
        UsageError: there is no such file, or the package is not installed.
        AtlasError: the server cannot start: the file is no model, or the port is taken.
    """
    if not model.is_file():
        raise UsageError(f"There is no GGUF file {model}. Check the path.")
    try:
        from xllamacpp import CommonParams, Server
    except ImportError as error:
        raise UsageError(
            "A server on this machine needs the package xllamacpp: pip install 'atlas-tune[local]'."
        ) from error
    params = CommonParams()
    params.model.path = str(model)
    # An answer says which model gave it; without a name it would be a path of this machine.
    params.model_alias = {name or model.stem}
    params.hostnames = ["127.0.0.1"]
    # Else any page in a browser on this machine may ask it.
    params.cors_origins = "http://127.0.0.1"
    params.port = port
    # llama.cpp divides the context among the slots.
    params.n_ctx = context * slots
    params.n_parallel = slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or _cores()
    params.verbosity = _FEW_LOGS
    try:
        return Server(params)
    except RuntimeError as error:
        raise AtlasError(
            f"llama.cpp cannot serve {model} on port {port or 'any'}; its own words are above. The "
            "file may be no GGUF model, or the port taken."
        ) from error


def serve(
    model: Annotated[Path, typer.Argument(help="A GGUF file.", dir_okay=False)],
    port: Annotated[int, typer.Option(min=0, help="Where to listen; 0 takes a free one.")] = 8080,
    context: Annotated[
        int, typer.Option(min=0, help="Tokens of question and answer; 0: the model's own.")
    ] = 0,
    slots: Annotated[int, typer.Option(min=1, help="Questions answered at once.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads.  [default: one a core]")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name.  [default: the file's]")
    ] = None,
) -> None:
    """Serve a GGUF model on 127.0.0.1 until Ctrl-C; the first line says where."""
    try:
        server = start_server(
            model, port=port, context=context, slots=slots, threads=threads, name=name
        )
    except AtlasError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from error
    typer.echo(f"{server.listening_address}/v1")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def _cores() -> int:
    """The cores that this process may use; not every system says so."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    typer.run(serve)
