"""The command that serves an environment over HTTP: serve-env."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas_tune.cli.options import Settings, parse_options
from atlas_tune.errors import AtlasError, UsageError, nearest
from atlas_tune.progress import say

if TYPE_CHECKING:
    from atlas_tune.environments.base import TextEnv

_PROTOCOLS = ("agentgym", "openenv")


def serve_env(
    environment: Annotated[str, typer.Argument(help="The environment, see `atlas-tune envs`.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 36001,
    split: Annotated[str, typer.Option(help="The split whose tasks AgentGym's indices count.")] = (
        "test"
    ),
    idle_minutes: Annotated[
        float, typer.Option(min=0.1, help="Episodes idle for so long are dropped.")
    ] = 60.0,
    most: Annotated[int, typer.Option(min=1, help="The most episodes at once.")] = 1000,
    protocol: Annotated[str, typer.Option(help="agentgym or openenv.")] = "agentgym",
    options: Settings = None,
) -> None:
    """Serve an environment over HTTP as AgentGym does, until Ctrl-C."""
    from atlas_tune.environments import make_environment

    if protocol not in _PROTOCOLS:
        raise UsageError(f"There is no protocol '{protocol}': {nearest(protocol, _PROTOCOLS)}")

    if protocol == "openenv" and options:
        raise UsageError("--set narrows the tasks that AgentGym's indices count; OpenEnv has none.")

    def make_env() -> TextEnv:
        return make_environment(environment)

    try:
        from atlas_tune.listening import address_of, bind, serve

        app: Callable[..., Any]
        if protocol == "openenv":
            from atlas_tune.environments.serving.openenv import make_openenv_app

            app, told = make_openenv_app(make_env, most=most), f"{environment} for OpenEnv at "
        else:
            from atlas_tune.environments.serving.app import Served, make_app

            chosen, seconds = parse_options(options), 60 * idle_minutes
            served = Served(make_env, split, chosen, idle_seconds=seconds, most=most)
            app = make_app(served)
            told = f"{environment}, {served.indexed:,} {split} tasks, as agentgym:plain@"
    except ModuleNotFoundError as error:
        extra = "openenv" if protocol == "openenv" else "serve"
        raise AtlasError(
            f"serve-env needs the package '{error.name}': "
            f"pip install 'atlas-tune[{extra},environments]'."
        ) from error
    with bind(host, port) as listening:
        url = address_of(listening)
        # The address alone goes to standard output: a script reads it there.
        print(url, flush=True)
        say(f"{told}{url}. Stop with Ctrl-C.")
        serve(app, listening)
    say("Stopped.")
