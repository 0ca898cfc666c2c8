"""Weights computed with in transformers give the same logits here, and the other way round."""

import itertools

import pytest
import torch

from lm import config, tokenizers, train
from lm.export import files
from lm.huggingface import config_json, families, weights
from lm.record.run import Run
from tests.helpers import BPE, GPT2, TINY_TRANSFORMER, export

transformers = pytest.importorskip("transformers", reason="the extra `interop` is not installed")
transformers.logging.set_verbosity_error()
GPT2_OPTIONS = {
    "bias": (True, False), "tie": (True, False), "activation": ("gelu", "relu2"), "n_mlp": (0, 20),
    "n_kv_head": (0, 4), "positions": ("learned",), "norm": ("layernorm",), "qk_norm": (False,),
}  # fmt: skip
LLAMA_OPTIONS = {
    "bias": (True, False), "tie": (True, False), "n_mlp": (0, 20), "n_kv_head": (0, 1, 2, 4),
    "rope_base": (1e4, 50.0), "norm_eps": (1e-2,), "activation": ("swiglu",),
    "positions": ("rope",), "norm": ("rmsnorm",), "qk_norm": (False,),
}  # fmt: skip
APERTUS_OPTIONS = {
    "tie": (True, False), "n_mlp": (0, 20), "n_kv_head": (0, 2), "activation": ("relu2", "gelu"),
    "norm_eps": (1e-5, 1e-2), "rope_base": (50.0,),
}  # fmt: skip
NANOCHAT_OPTIONS = APERTUS_OPTIONS | {"embed_norm": (True,), "softcap": (0.0, 0.5)}
OPTIONS = {
    "gpt2": GPT2_OPTIONS, "llama": LLAMA_OPTIONS,
    "apertus": APERTUS_OPTIONS, "nanochat": NANOCHAT_OPTIONS,
}  # fmt: skip


@pytest.mark.parametrize("family", OPTIONS)
def test_every_combination_of_options_that_a_class_has_gives_its_logits(family):
    options = OPTIONS[family]
    for values in itertools.product(*options.values()):
        chosen = dict(zip(options, values, strict=True))
        cfg = config.TransformerConfig(context_len=8, n_layer=2, n_head=4, n_embd=16, **chosen)
        assert families.family(cfg) == family
        _assert_same_logits(cfg)


@pytest.mark.parametrize("changes", [{}, {"activation": "swiglu", "qk_norm": False}])
def test_scores_of_heads_wider_than_the_base_s_are_scaled_there_too(changes):
    """In the gains of normed queries where they have some, in the queries where they are plain."""
    sizes = {"context_len": 8, "n_layer": 2, "n_head": 2, "n_embd": 32, "base_width": 8}
    _assert_same_logits(config.TransformerConfig(**sizes, **changes))
    with pytest.raises(ValueError, match=r"NanoChat cannot scale .* model\.embed_norm=false"):
        weights.to_hf(config.TransformerConfig(**sizes, embed_norm=True).build(30))


def _assert_same_logits(cfg):
    """Of a random model with these settings, and of the class of transformers with its weights."""
    ids = torch.randint(0, 30, (2, 7), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = cfg.build(30).eval()
    with torch.no_grad():
        for p in ours.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    theirs_config = transformers.AutoConfig.for_model(**config_json.to_hf(cfg, 30, 29))
    theirs = transformers.AutoModelForCausalLM.from_config(theirs_config).eval()
    found = theirs.load_state_dict(weights.to_hf(ours), strict=False)
    assert not found.unexpected_keys, cfg
    tied = theirs_config.tie_word_embeddings
    assert set(found.missing_keys) <= ({"lm_head.weight"} if tied else set()), cfg
    theirs.tie_weights()
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(ids).logits, ours(ids), atol=1e-5, rtol=0, msg=lambda m: f"{cfg} {m}"
        )


def _their_folder(kind, folder, bpe):
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
        sizes = {
            "vocab_size": V + 5, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 40, "bos_token_id": V - 1, "eos_token_id": V - 1,
            "pad_token_id": None, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
        }  # fmt: skip
        if kind == "apertus":
            sizes["hidden_act"] = "relu2"
        cfg = transformers.AutoConfig.for_model(kind, **sizes)
        model = transformers.AutoModelForCausalLM.from_config(cfg)
    with torch.no_grad():
        for name, p in model.named_parameters():  # biases and gains are not random at first
            if "q_norm" not in name and "k_norm" not in name:  # but these, which ours has not
                p.add_(torch.randn_like(p) * 0.05)
    model.save_pretrained(folder)
    if kind != "gpt2":  # the id of its end token is in config.json, the name is not ours
        tokens = {i: bpe.token_bytes(i) for i in range(V - 1)}
        bpe = tokenizers.BPETokenizer(tokens, bpe.merges, "gpt4", {"<|end_of_text|>": V - 1})
    files.to_tokenizers(bpe, folder)
    return model.eval()


@pytest.mark.parametrize("kind", OPTIONS)
def test_init_from_starts_with_what_transformers_wrote(kind, toy_bpe, cfg, tiny, tmp_path):
    folder = tmp_path / "theirs"
    theirs = _their_folder(kind, folder, toy_bpe)
    made = cfg(*tiny, f"init_from={folder}", "model.context_len=32", "train.steps=4")
    assert (made.model.context_len, made.tokenizer.name) == (32, "hf")
    ours = made.model.build(toy_bpe.vocab_size).eval()
    weights.load(folder, ours)
    ids = torch.randint(0, toy_bpe.vocab_size, (2, 32))
    with torch.no_grad():
        expected = theirs(ids).logits[..., : toy_bpe.vocab_size]
        torch.testing.assert_close(ours(ids), expected, atol=1e-5, rtol=0)
    out = tmp_path / "run"
    out.mkdir()
    config.save(made, out / config.RESOLVED)
    train.train(made, out)
    run = Run.open(str(out))
    assert run.tokenizer.encode_ordinary("the cat said") == toy_bpe.encode_ordinary("the cat said")
    tuned = run.model("last")
    before, after = (dict(m.named_parameters())["wte.weight"] for m in (ours, tuned))
    assert 0 < (after - before).abs().max() < 0.1
    library = transformers.AutoTokenizer.from_pretrained(export(out, tmp_path / "out-hf"))
    assert library.eos_token_id == run.tokenizer.eot_id == toy_bpe.vocab_size - 1
    assert library.eos_token == run.tokenizer.eot


def test_gpt2_through_export_and_init_from_is_the_same_model(trained, cfg, tiny, tmp_path):
    path = trained(*BPE, *GPT2)
    out = export(path, tmp_path / "out-hf")
    made = cfg(*tiny, f"init_from={out}")
    ours, again = Run.open(str(path)).model("best"), made.model.build(300).eval()
    weights.load(out, again)
    ids = torch.randint(0, 300, (2, 16))
    assert torch.equal(ours(ids), again(ids))


@pytest.mark.parametrize("embed_norm", [False, True])
def test_the_default_model_through_export_and_init_from_is_the_same(embed_norm, trained, cfg, tiny):
    path = trained(*BPE, *TINY_TRANSFORMER, f"model.embed_norm={embed_norm}")
    out = export(path, path.parent / "out-hf")
    made = cfg(*tiny, f"init_from={out}")
    ours, again = Run.open(str(path)).model("best"), made.model.build(300).eval()
    weights.check_fits(out, made.model)
    weights.load(out, again)
    ids = torch.randint(0, 300, (2, 16))
    torch.testing.assert_close(again(ids), ours(ids), atol=1e-5, rtol=0)


def test_gains_of_queries_and_keys_are_refused(toy_bpe, tmp_path):
    model = _their_folder("apertus", tmp_path, toy_bpe)
    model.model.layers[1].self_attn.k_norm.weight.data *= 2
    model.save_pretrained(tmp_path)
    made = config.TransformerConfig(**config_json.settings_of(tmp_path)).build(toy_bpe.vocab_size)
    with pytest.raises(ValueError, match=r"k_norm\.weight has gains other than 1"):
        weights.load(tmp_path, made)


def test_a_pickled_checkpoint_is_not_read(toy_bpe, tmp_path):
    _their_folder("gpt2", tmp_path, toy_bpe)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    made = config.TransformerConfig(**config_json.settings_of(tmp_path)).build(toy_bpe.vocab_size)
    with pytest.raises(FileNotFoundError, match="is a pickle, which could run code"):
        weights.load(tmp_path, made)
