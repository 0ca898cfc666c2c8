"""Exports are loaded in the real libraries, and compute and encode the same there."""

import importlib.util

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm import tokenizers
from lm.export import files
from lm.generate import generate
from lm.record.run import Run
from tests.helpers import BPE, GPT2, LLAMA, TINY_TRANSFORMER, export, tiktoken_of_card

transformers = pytest.importorskip("transformers", reason="the extra `interop` is not installed")
transformers.logging.set_verbosity_error()

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SLOWLY = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize(
    "overrides",
    [
        GPT2,
        (*GPT2, "model.bias=false", "model.tie=false", "model.activation=relu2", "model.n_mlp=24"),
        LLAMA,
        (*LLAMA, "model.n_kv_head=2", "model.tie=true", "model.bias=true", "model.rope_base=500"),
        TINY_TRANSFORMER,
        ("model=nanochat", *TINY_TRANSFORMER, "model.n_kv_head=1"),
    ],
    ids=["gpt2", "gpt2-options", "llama", "llama-options", "default", "nanochat"],
)
def test_transformers_computes_the_same_logits_and_text(trained, tmp_path, overrides):
    path = trained(*BPE, *overrides)
    run = Run.open(str(path))
    ours = run.model("best")
    out = export(path, tmp_path / "out-hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ids = torch.randint(0, ours.vocab_size, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(ids), atol=1e-5, rtol=0)
    matrices = sum(p.numel() for p in ours.parameters() if p.ndim > 1)  # NanoChat has no gains
    assert sum(p.numel() for p in theirs.parameters()) >= matrices
    prompt = "the cat"
    found = tokenizer(prompt, return_tensors="pt").input_ids
    assert found[0].tolist() == run.tokenizer.encode_ordinary(prompt)
    n = 16 - found.shape[1]
    text = theirs.generate(found, max_new_tokens=n, do_sample=False)[0]
    steps = generate(ours, [found[0].tolist()], max_tokens=n, temperature=0)
    mine = [*found[0].tolist(), *(step[0] for step in steps)]
    assert text.tolist() == mine
    assert tokenizer.decode(text) == run.tokenizer.decode(mine)
    card = (out / "README.md").read_text()
    assert "model.n_layer: 2" in card and "torch:" in card


@pytest.fixture(scope="module")
def both(toy_bpe, tmp_path_factory):
    """The tokenizer and the same one in the tokenizers library, and in tiktoken."""
    pytest.importorskip("tiktoken")
    library = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("exports")
    files.to_tokenizers(toy_bpe, folder)
    files.to_tiktoken(toy_bpe, "a-run", folder)
    theirs = library.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return toy_bpe, theirs, tiktoken_of_card(folder)


@SLOWLY
@given(text=TEXT)
def test_every_text_has_the_same_ids_in_tokenizers_and_tiktoken(both, text):
    ours, library, encoding = both
    ids = ours.encode_ordinary(text)
    assert library.encode(text.replace("<|endoftext|>", "")).ids == ours.encode_ordinary(
        text.replace("<|endoftext|>", "")
    )
    assert encoding.encode_ordinary(text) == ids
    assert library.decode(ids, skip_special_tokens=False) == ours.decode(ids)


@pytest.mark.parametrize("name", ["char", "byte"])
def test_char_and_byte_tokenizers_keep_their_ids(name, toy_text, tmp_path):
    library = pytest.importorskip("tokenizers")
    text = toy_text.read_text(encoding="utf-8") + "\u00e9\U0001f600\r\n\t"
    ours = tokenizers.train(name, [text])
    files.to_tokenizers(ours, tmp_path)
    theirs = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode(text).ids == ours.encode_ordinary(text)
    assert theirs.decode(ours.encode_ordinary(text)) == text


def test_other_models_are_refused_and_nothing_is_written(trained, tmp_path):
    path = trained("model=gru")
    with pytest.raises(ValueError, match="model gru has no class in transformers"):
        export(path, tmp_path / "out-hf")
    assert not list(tmp_path.glob("*out-hf*"))


def test_a_class_that_the_installed_transformers_lacks_is_refused(trained_once, tmp_path):
    """None of it is written; without transformers at all, the model card says which it needs."""
    path = trained_once(*TINY_TRANSFORMER)
    old = tmp_path / "old"
    (old / "transformers" / "models" / "gpt2").mkdir(parents=True)
    (old / "transformers" / "__init__.py").touch()
    found = importlib.util.spec_from_file_location(
        "transformers",
        old / "transformers" / "__init__.py",
        submodule_search_locations=[str(old / "transformers")],
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: found)
        message = r"has no ApertusForCausalLM: pip install 'transformers>=4\.56'"
        with pytest.raises(ValueError, match=message):
            export(path, tmp_path / "out-hf")
        assert not list(tmp_path.glob("*out-hf*"))
        patched.setattr(importlib.util, "find_spec", lambda name: None)
        out = export(path, tmp_path / "out-hf")
    assert 'pip install "transformers>=4.56"' in (out / "README.md").read_text()
