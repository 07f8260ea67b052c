"""The command that shares a tuned model: push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from atlas_tune.errors import AtlasError, UsageError
from atlas_tune.progress import say


def push(
    model: Annotated[Path, typer.Argument(help="A directory that `tune` made.", file_okay=False)],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub.")],
    public: Annotated[bool, typer.Option("--public", help="For everybody to see.")] = False,
) -> None:
    """Upload a tuned model with its card to the Hugging Face Hub; private unless told otherwise.

    The access token is that of `hf auth login`, or of the variable HF_TOKEN.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    if not any(model.glob("*.safetensors")):
        raise UsageError(
            f"{model} holds no weights: name a directory in which `tune` has finished."
        )
    api = HfApi()
    try:
        made = api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=model,
            commit_message="Weights, tokenizer and model card from atlas-tune",
            # A machine's paths may stand in checkpoints and logs; they are no part of the model.
            ignore_patterns=["checkpoints/*", "*.partial"],
        )
    except LocalTokenNotFoundError as error:
        raise AtlasError("No access token: run `hf auth login`, or set HF_TOKEN.") from error
    except HFValidationError as error:
        raise UsageError(f"'{repository}' is no OWNER/NAME: {error}") from error
    except HfHubHTTPError as error:
        raise AtlasError(f"The Hub refused {repository}: {error}") from error
    say(f"{model} is at {made}")
