"""Exports are loaded back in the real libraries; what those write is trained further here."""

import itertools
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm import config, tokenizers, train
from lm.export import files
from lm.export.__main__ import command as export_command
from lm.export.card import USES, ExportConfig, card
from lm.generate import generate
from lm.huggingface import config as hf_config
from lm.huggingface import weights as hf_weights
from lm.record.run import Run
from lm.tokenizers import formats

transformers = pytest.importorskip("transformers", reason="the extra `interop` is not installed")
transformers.logging.set_verbosity_error()
GPT2 = ("model=gpt2", "model.n_layer=2", "model.n_head=2", "model.n_embd=16")
LLAMA = ("model=llama", "model.n_layer=2", "model.n_head=4", "model.n_embd=32")
BPE = ("tokenizer=bpe", "tokenizer.vocab_size=300")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SLOWLY = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def exported(run, tmp_path, kind="hf"):
    out = tmp_path / f"out-{kind}"
    export_command(ExportConfig(run=str(run), format=kind, out=str(out)))
    return out


@pytest.mark.parametrize(
    "overrides",
    [
        GPT2,
        (*GPT2, "model.bias=false", "model.tie=false", "model.activation=relu2", "model.n_mlp=24"),
        LLAMA,
        (*LLAMA, "model.n_kv_head=2", "model.tie=true", "model.bias=true", "model.rope_base=500"),
    ],
    ids=["gpt2", "gpt2-options", "llama", "llama-options"],
)
def test_transformers_computes_the_same_logits_and_text(trained, tmp_path, overrides):
    path = trained(*BPE, *overrides)
    run = Run.open(str(path))
    ours = run.model("best")
    out = exported(path, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ids = torch.randint(0, ours.vocab_size, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(ids), atol=1e-5, rtol=0)
    assert sum(p.numel() for p in theirs.parameters()) >= ours.n_params()
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


def test_the_card_gives_the_results_of_the_checkpoint_that_is_exported(trained):
    run = Run.open(str(trained(*BPE)))
    points = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for step in (10, 20):
        (bpb,) = [p["val/bpb"] for p in points if p["step"] == step and "val/bpb" in p]
        text = card(run, ExportConfig(checkpoint=str(step)), "out")
        assert f"| val/bpb | {bpb:.4f} |" in text and f"which is step {step}." in text


GPT2_OPTIONS = {
    "bias": (True, False), "tie": (True, False), "activation": ("gelu", "relu2"), "n_mlp": (0, 20),
    "n_kv_head": (0, 4), "positions": ("learned",), "norm": ("layernorm",), "qk_norm": (False,),
}  # fmt: skip
LLAMA_OPTIONS = {
    "bias": (True, False), "tie": (True, False), "n_mlp": (0, 20), "n_kv_head": (0, 1, 2, 4),
    "rope_base": (1e4, 50.0), "norm_eps": (1e-2,), "activation": ("swiglu",),
    "positions": ("rope",), "norm": ("rmsnorm",), "qk_norm": (False,),
}  # fmt: skip


@pytest.mark.parametrize("options", [GPT2_OPTIONS, LLAMA_OPTIONS], ids=["gpt2", "llama"])
def test_every_combination_of_options_that_a_class_has_gives_its_logits(options):
    ids = torch.randint(0, 30, (2, 7), generator=torch.Generator().manual_seed(0))
    for values in itertools.product(*options.values()):
        chosen = dict(zip(options, values, strict=True))
        cfg = config.TransformerConfig(context_len=8, n_layer=2, n_head=4, n_embd=16, **chosen)
        torch.manual_seed(1)
        ours = cfg.build(30).eval()
        with torch.no_grad():
            for p in ours.parameters():
                p.add_(torch.randn_like(p) * 0.1)
        told = hf_config.config_of(cfg, 30, 29)
        theirs = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**told)
        ).eval()
        found = theirs.load_state_dict(hf_weights.to_hf(ours), strict=False)
        assert not found.unexpected_keys, chosen
        assert set(found.missing_keys) <= ({"lm_head.weight"} if cfg.tie else set()), chosen
        theirs.tie_weights()
        with torch.no_grad():
            torch.testing.assert_close(
                theirs(ids).logits, ours(ids), atol=1e-5, rtol=0, msg=lambda m, c=chosen: f"{c} {m}"
            )


@pytest.fixture(scope="module")
def bpe(toy_text):
    return tokenizers.train("bpe", [toy_text.read_text(encoding="utf-8")], vocab_size=400)


@pytest.fixture(scope="module")
def both(bpe, tmp_path_factory):
    """The tokenizer and the same one in the tokenizers library, and in tiktoken."""
    pytest.importorskip("tiktoken")
    library = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("exports")
    run = Run(folder / "a-run", None, bpe)
    files.to_tokenizers(run, folder, "")
    files.to_tiktoken(run, folder, "")
    theirs = library.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return bpe, theirs, as_the_card_says(folder)


def as_the_card_says(folder):
    """The tiktoken.Encoding that the code in a model card makes."""
    names = {}
    exec(USES["tiktoken"].format(name=folder), names)
    return names["encoding"]


def test_the_card_reads_what_was_exported_last_to_a_path(bpe, tmp_path):
    """Its code once went through tiktoken's cache, which knows a file by its path alone."""
    pytest.importorskip("tiktoken")
    for tokenizer in (bpe, tokenizers.BPETokenizer.of_merges([(116, 104, 256), (256, 101, 257)])):
        files.to_tiktoken(Run(tmp_path, None, tokenizer), tmp_path, "")
        assert as_the_card_says(tmp_path).encode("the cat") == tokenizer.encode("the cat")


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
    files.to_tokenizers(Run(tmp_path, None, ours), tmp_path, "")
    theirs = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode(text).ids == ours.encode_ordinary(text)
    assert theirs.decode(ours.encode_ordinary(text)) == text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"qk_norm": True}, "llama, the nearest, differs in model.qk_norm=True"),
        ({"softcap": 15.0}, "model.softcap=15.0"),
        ({"activation": "gelu"}, "model.activation=gelu (it has swiglu)"),
        ({"positions": "learned"}, "model.positions=learned (it has rope)"),
        ({"positions": "learned"}, "train with model=llama or model=gpt2"),
    ],
)
def test_what_no_class_can_express_is_refused_with_the_reason(change, reason):
    llama = {"activation": "swiglu", "qk_norm": False, "tie": False}
    with pytest.raises(ValueError) as refused:
        hf_config.family(config.TransformerConfig(**llama | change))
    assert reason in str(refused.value)


def test_other_models_are_refused_and_nothing_is_written(trained, tmp_path):
    path = trained("model=gru")
    with pytest.raises(ValueError, match="model gru has no class in transformers"):
        exported(path, tmp_path)
    assert not list(tmp_path.glob("*out-hf*"))


def _their_folder(kind, folder, bpe, safe=True):
    """A small random model that transformers itself writes, with a tokenizer."""
    torch.manual_seed(3)
    V = bpe.vocab_size
    if kind == "gpt2":
        cfg = transformers.GPT2Config(
            vocab_size=V, n_embd=16, n_layer=2, n_head=2, n_positions=40,
            bos_token_id=V - 1, eos_token_id=V - 1,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(cfg)
    else:
        cfg = transformers.LlamaConfig(
            vocab_size=V + 5, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=40,
            rms_norm_eps=1e-6, bos_token_id=V - 1, eos_token_id=V - 1,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(cfg)
    with torch.no_grad():
        for p in model.parameters():  # biases and gains are not random at first
            p.add_(torch.randn_like(p) * 0.05)
    model.save_pretrained(folder)
    if kind == "llama":  # the id of its end token is in config.json, the name is not ours
        tokens = {i: bpe.token_bytes(i) for i in range(V - 1)}
        bpe = tokenizers.BPETokenizer(tokens, bpe.merges, "gpt4", {"<|end_of_text|>": V - 1})
    files.to_tokenizers(Run(folder, None, bpe), folder, "")
    return model.eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_init_from_starts_with_what_transformers_wrote(kind, bpe, cfg, tiny, tmp_path):
    folder = tmp_path / "theirs"
    theirs = _their_folder(kind, folder, bpe)
    made = cfg(*tiny, f"init_from={folder}", "model.context_len=32", "train.steps=4")
    assert (made.model.context_len, made.tokenizer.name) == (32, "hf")
    ours = made.model.build(bpe.vocab_size).eval()
    hf_weights.load(folder, ours)
    ids = torch.randint(0, bpe.vocab_size, (2, 32))
    with torch.no_grad():
        expected = theirs(ids).logits[..., : bpe.vocab_size]
        torch.testing.assert_close(ours(ids), expected, atol=1e-5, rtol=0)
    out = tmp_path / "run"
    out.mkdir()
    config.save(made, out / config.RESOLVED)
    train.train(made, out)
    run = Run.open(str(out))
    assert run.tokenizer.encode_ordinary("the cat said") == bpe.encode_ordinary("the cat said")
    tuned = run.model("last")
    before, after = (dict(m.named_parameters())["wte.weight"] for m in (ours, tuned))
    assert 0 < (after - before).abs().max() < 0.1
    library = transformers.AutoTokenizer.from_pretrained(exported(out, tmp_path))
    assert library.eos_token_id == run.tokenizer.eot_id == bpe.vocab_size - 1
    assert library.eos_token == run.tokenizer.eot


def test_gpt2_through_export_and_init_from_is_the_same_model(trained, cfg, tiny, tmp_path):
    path = trained(*BPE, *GPT2)
    out = exported(path, tmp_path)
    made = cfg(*tiny, f"init_from={out}")
    ours, again = Run.open(str(path)).model("best"), made.model.build(300).eval()
    hf_weights.load(out, again)
    ids = torch.randint(0, 300, (2, 16))
    assert torch.equal(ours(ids), again(ids))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type is 'bert', and gpt2 and llama can be read"),
        ({"activation_function": "elu"}, "activation_function=elu"),
        ({"n_layer": None}, "has no 'n_layer'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(change, message, tmp_path):
    values = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16}
    values = {k: v for k, v in (values | change).items() if v is not None}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError) as refused:
        hf_config.settings_of(tmp_path)
    assert message in str(refused.value)


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


@SLOWLY
@given(text=st.text(st.sampled_from("ab 1\u0663\u2167\n\t'lst.\u00e9"), max_size=20))
def test_single_digits_before_gpt2s_pattern_are_read_as_the_library_reads_them(single_digits, text):
    """SmolLM's pre_tokenizer, and Llama 3's rule that a chunk that is a token is taken whole."""
    ours, theirs = single_digits
    assert ours.encode_ordinary(text) == theirs.encode(text).ids


@pytest.fixture(scope="module")
def single_digits(bpe, tmp_path_factory):
    library = pytest.importorskip("tokenizers")
    path = tmp_path_factory.mktemp("digits") / "tokenizer.json"
    formats.to_hf(bpe, path)
    state = json.loads(path.read_text())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    digits = {"type": "Digits", "individual_digits": True}
    steps = [digits, byte_level | {"use_regex": True}]
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    state["model"]["ignore_merges"] = True
    path.write_text(json.dumps(state))
    return formats.from_hf(path), library.Tokenizer.from_file(str(path))


def test_init_from_nothing_is_told_in_one_line(command):
    done = command("lm.train", "init_from=nowhere")
    assert done.returncode == 2
    assert "init_from=nowhere: there is no nowhere/config.json" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_pickled_checkpoint_is_not_read(bpe, tmp_path):
    _their_folder("gpt2", tmp_path, bpe)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    made = config.TransformerConfig(**hf_config.settings_of(tmp_path)).build(bpe.vocab_size)
    with pytest.raises(FileNotFoundError, match="is a pickle, which could run code"):
        hf_weights.load(tmp_path, made)
