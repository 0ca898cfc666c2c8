"""The tokenizer of a Hugging Face folder: its end of a document, and digits cut one by one."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm import tokenizers
from lm.tokenizers import formats


@pytest.mark.parametrize(
    ("end", "settings"),
    [
        ("<|end_of_text|>", {"config.json": {"eos_token_id": [301, 300]}}),
        ("</s>", {"tokenizer_config.json": {"eos_token": "</s>"}}),
        ("</s>", {"tokenizer_config.json": {"eos_token": {"content": "</s>"}}}),
        ("<|endoftext|>", {}),
    ],
)
def test_the_end_of_a_document_is_the_token_that_the_folder_names(end, settings, tmp_path):
    """Folders whose end token was not called <|endoftext|>, such as Llama 3's, were refused."""
    text = "the cat said the cat sat " * 20
    made = tokenizers.train("bpe", [text], vocab_size=264, specials=())
    n = made.vocab_size
    specials = {"<|begin|>": n, end: n + 1, "<|eot_id|>": n + 2}
    if ids := settings.get("config.json"):
        ids["eos_token_id"] = [n + 1, n + 2]
    tokens = {i: made.token_bytes(i) for i in range(n)}
    theirs = tokenizers.BPETokenizer(tokens, made.merges, "gpt4", specials)
    formats.to_hf(theirs, tmp_path / "tokenizer.json")
    for name, values in settings.items():
        (tmp_path / name).write_text(json.dumps(values))
    found = formats.from_hf_folder(tmp_path)
    assert (found.eot, found.eot_id) == (end, n + 1)
    again = tokenizers.from_json(found.to_json())
    assert (again.eot_id, again.fingerprint) == (n + 1, found.fingerprint)
    assert ('"eot"' in found.to_json()) == (end != "<|endoftext|>")


def test_a_folder_that_names_no_end_token_is_refused(tmp_path):
    made = tokenizers.train("bpe", ["the cat said"], vocab_size=260, specials=("<s>",))
    formats.to_hf(made, tmp_path / "tokenizer.json")
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    with pytest.raises(ValueError, match="which token ends a document"):
        formats.from_hf_folder(tmp_path)


@pytest.fixture(scope="module")
def single_digits(toy_bpe, tmp_path_factory):
    library = pytest.importorskip("tokenizers")
    path = tmp_path_factory.mktemp("digits") / "tokenizer.json"
    formats.to_hf(toy_bpe, path)
    state = json.loads(path.read_text())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    digits = {"type": "Digits", "individual_digits": True}
    steps = [digits, byte_level | {"use_regex": True}]
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    state["model"]["ignore_merges"] = True
    path.write_text(json.dumps(state))
    return formats.from_hf(path), library.Tokenizer.from_file(str(path))


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(st.sampled_from("ab 1\u0663\u2167\n\t'lst.\u00e9"), max_size=20))
def test_single_digits_before_gpt2s_pattern_are_read_as_the_library_reads_them(single_digits, text):
    """SmolLM's pre_tokenizer, and Llama 3's rule that a chunk that is a token is taken whole."""
    ours, theirs = single_digits
    assert ours.encode_ordinary(text) == theirs.encode(text).ids
