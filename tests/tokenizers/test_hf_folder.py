"""The tokenizer of a Hugging Face folder: its end of a document, and digits cut one by one."""

import itertools
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


ODD = [None, True, 0, -1, 1 << 70, 0.5, "", "x", "\ud800", [], {}, [[]], [1], {"x": 1}, "a" * 5000]


@pytest.fixture
def small(tmp_path):
    """A folder with a small tokenizer.json, and its tokenizer."""
    made = tokenizers.train("bpe", ["the cat sat on the mat " * 9], vocab_size=262, pattern="gpt2")
    formats.to_hf(made, tmp_path / "tokenizer.json")
    return tmp_path, made


def with_odd_values(value):
    """The JSON value with each part of it replaced by each odd one, a few of a long list's."""
    yield from ODD
    if isinstance(value, (dict, list)):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        for key in keys if len(keys) < 20 else [keys[0], keys[-1]]:
            for inner in with_odd_values(value[key]):
                changed = value.copy()
                changed[key] = inner
                yield changed
            if isinstance(value, dict):
                yield {k: v for k, v in value.items() if k != key}


def one_line(folder):
    try:
        formats.from_hf_folder(folder).encode_ordinary("the cat")
    except (ValueError, OSError) as error:
        text = str(error)
        assert "\n" not in text and len(text) < 600 and str(folder) in text, text


@pytest.mark.filterwarnings("ignore")
def test_every_odd_value_in_a_folder_is_taken_or_refused_in_one_line(small):
    folder, _ = small
    good = {name: {"eos_token_id": 261, "eos_token": {"content": "<|endoftext|>"}}
            for name in ("config.json", "tokenizer_config.json")}  # fmt: skip
    good["tokenizer.json"] = json.loads((folder / "tokenizer.json").read_text())
    for name, values in good.items():
        step = 4 if name == "tokenizer.json" else 1  # tests/fuzz tries more
        for changed in itertools.islice(with_odd_values(values), 0, None, step):
            (folder / name).write_bytes(json.dumps(changed).encode("utf-8", "surrogatepass"))
            one_line(folder)
        (folder / name).write_text(json.dumps(values))


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_two_files_of_gpt2_are_read_as_any_system_writes_them(small, line_end, mark):
    folder, made = small
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    vocab = json.dumps(model["vocab"], indent=1).replace("\n", line_end)
    (folder / "vocab.json").write_bytes((mark + vocab).encode())
    (folder / "merges.txt").write_bytes((mark + line_end.join(lines) + line_end).encode())
    text = "the cat sat on the mat"
    assert formats.from_hf_folder(folder).encode_ordinary(text) == made.encode_ordinary(text)
    for odd in ("a", "a b c", "\u4e2d b", "zz qq"):
        (folder / "merges.txt").write_text("\n".join([*lines, odd]))
        with pytest.raises(ValueError, match="merge"):
            formats.from_hf_folder(folder)
    (folder / "merges.txt").write_text("version https://git-lfs.github.com/spec/v1\noid x")
    with pytest.raises(
        ValueError, match=r"merges\.txt is a pointer of Git LFS.*: git -C .* lfs pull"
    ):
        formats.from_hf_folder(folder)
