"""Settings that a class of transformers has are found in both directions; others are refused."""

import json
import re

import pytest

from lm import config
from lm.config import Config
from lm.huggingface import config_json, families
from lm.launch import compose
from lm.system.errors import ConfigError
from tests.models.small import SETTINGS


def test_every_preset_of_the_transformer_has_a_class():
    found = {}
    for name, cfg in SETTINGS.items():
        try:
            found[name] = families.family(cfg)
        except ValueError as refused:
            found[name] = re.sub("model .* has no", "has no", str(refused)).partition(":")[0]
    others = {"bigram", "bigram_counts", "gru", "mlp", "ngram"}
    assert found == {
        "transformer": "apertus",
        "widened": "apertus",
        "gpt2": "gpt2",
        "llama": "llama",
        "llama-gqa": "llama",
        "nanochat": "nanochat",
        "capped": found["capped"],
        **dict.fromkeys(others, "has no class in transformers"),
    }
    assert "differs in model.norm=layernorm" in found["capped"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"qk_norm": True},
            "llama, the nearest, differs in model.qk_norm=true: train with model.qk_norm=false",
        ),
        ({"softcap": 15.0}, "model.softcap=15.0"),
        ({"activation": "gelu"}, "model.activation=gelu: train with model.activation=swiglu"),
        ({"norm": "layernorm"}, "model.norm=layernorm: train with model.norm=rmsnorm"),
        (
            {"positions": "learned", "softcap": 15.0},
            "model.positions=learned, model.softcap=15.0: train with model.positions=rope "
            "model.softcap=0.0",
        ),
    ],
)
def test_what_no_class_can_express_is_refused_with_the_reason(change, reason):
    llama = {"activation": "swiglu", "qk_norm": False, "tie": False}
    with pytest.raises(ValueError) as refused:
        families.family(config.TransformerConfig(**llama | change))
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "'bert', and gpt2, llama, apertus, nanochat can be read"),
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
        config_json.settings_of(tmp_path)
    assert message in str(refused.value)


def test_init_from_nothing_is_told_in_one_line(command):
    done = command("lm.train", "init_from=nowhere")
    assert done.returncode == 2
    assert "init_from=nowhere: there is no nowhere/config.json" in done.stderr
    assert done.stderr.count("\n") == 1


GPT2 = {
    "model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 8, "n_positions": 16,
    "n_inner": 20, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True, "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 16,
    "intermediate_size": 20, "max_position_embeddings": 16, "num_key_value_heads": 2,
    "head_dim": 4, "rope_theta": 1e4, "rms_norm_eps": 1e-6, "hidden_act": "silu",
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "tie_word_embeddings": False,
    "rope_scaling": {"type": "default"}, "attention_bias": False, "mlp_bias": False,
}  # fmt: skip
APERTUS = LLAMA | {"model_type": "apertus", "hidden_act": "relu2"}
APERTUS = {k: v for k, v in APERTUS.items() if k not in ("mlp_bias", "rope_scaling", "rope_theta")}
NANOCHAT = APERTUS | {"model_type": "nanochat", "final_logit_softcapping": 15.0}
KINDS = {"gpt2": GPT2, "llama": LLAMA, "apertus": APERTUS, "nanochat": NANOCHAT}
ODD = ["", "x", "12", [], [1], {}, {"x": 1}, 0, -1, 1, 3, 0.5, 1e-320, 1e300, 1 << 40, 10**400]
ODD += [True, False, float("nan"), float("inf"), "\x1b[31m", "x" * 10_000, [[[]]], {"a": {"b": 0}}]
REQUIRED = {"n_layer", "n_head", "n_embd", "n_positions", "num_hidden_layers", "hidden_size"}
REQUIRED |= {"num_attention_heads", "intermediate_size", "max_position_embeddings", "model_type"}


def saved(folder, values):
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_odd_value_of_every_key_is_taken_or_refused_in_one_line(kind, tmp_path):
    """With the file, the key and what is allowed."""
    values = KINDS[kind]
    for key in values:
        for odd in ODD:
            saved(tmp_path, values | {key: odd})
            try:
                settings = config_json.settings_of(tmp_path)
            except ValueError as error:
                text = str(error)
                assert str(tmp_path) in text and "\n" not in text and len(text) < 500
                assert key in text or "which is odd" in text, (key, odd, text)
            else:
                config.TransformerConfig(**settings).build(9) if odd in (1, 3) else None


@pytest.mark.parametrize("kind", KINDS)
def test_null_means_the_default(kind, tmp_path):
    values = KINDS[kind]
    required = REQUIRED
    if kind == "apertus":  # without them its angles are scaled and its activation is none of ours
        required = REQUIRED | {"rope_parameters", "hidden_act"}
    for key in values:
        if key == "final_logit_softcapping":
            continue
        saved(tmp_path, {k: v for k, v in values.items() if k != key})
        if key in required:
            with pytest.raises(ValueError, match=f"{'its ' * (key == 'model_type')}.*{key}"):
                config_json.settings_of(tmp_path)
        else:
            expected = config_json.settings_of(tmp_path)
        saved(tmp_path, values | {key: None})
        if key in required:
            with pytest.raises(ValueError, match=key):
                config_json.settings_of(tmp_path)
        else:
            assert config_json.settings_of(tmp_path) == expected


@pytest.mark.parametrize(("kind", "eps"), [("llama", 1e-6), ("apertus", 1e-5), ("nanochat", 1e-6)])
def test_a_key_that_is_left_out_has_the_default_of_its_own_family(kind, eps, tmp_path):
    values = {key: value for key, value in KINDS[kind].items() if key != "rms_norm_eps"}
    settings = config_json.settings_of(saved(tmp_path, values | {"tie_word_embeddings": False}))
    assert (settings["norm_eps"], settings["tie"]) == (eps, False)


def test_nanochat_without_a_cap_says_null(tmp_path):
    for value, cap in ((None, 0.0), (7.0, 7.0)):
        saved(tmp_path, NANOCHAT | {"final_logit_softcapping": value})
        settings = config_json.settings_of(tmp_path)
        assert (settings["softcap"], settings["embed_norm"]) == (cap, True)
        values = config_json.to_hf(config.TransformerConfig(**settings), 9, 8)
        assert values["final_logit_softcapping"] == value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n_head": 0}, "config.json: n_head is 0, expected int >= 1"),
        ({"n_layer": "12"}, "config.json: n_layer is '12', expected int, got str"),
        ({"n_embd": [8]}, r"config.json: n_embd is \[8\], expected int, got array"),
        ({"n_embd": 1 << 30}, "config.json: n_embd is 1073741824, expected int <= 1048576"),
        ({"n_embd": 9}, "config.json: n_embd=9 is not a multiple of n_head=2"),
        ({"tie_word_embeddings": "no"}, "config.json: tie_word_embeddings is 'no', expected bool"),
    ],
)
def test_what_is_allowed_stands_in_the_line(change, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        config_json.settings_of(saved(tmp_path, GPT2 | change))


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        ("gpt2", {"scale_attn_weights": False}, "weights=False is not supported, True is"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "idx=True is not supported"),
        ("gpt2", {"add_cross_attention": True}, "attention=True is not supported, False is"),
        ("gpt2", {"activation_function": "relu"}, "activation_function=relu is not one of ours"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act=gelu is not supported, silu is"),
        ("llama", {"mlp_bias": True}, "attention_bias and mlp_bias differ"),
        ("llama", {"head_dim": 8}, "head_dim=8 is not hidden_size=16 / num_attention_heads=4"),
        ("apertus", {"attention_bias": True}, "attention_bias=True is not supported, False is"),
        ("nanochat", {"attention_bias": True}, "attention_bias=True is not supported, False is"),
        ("nanochat", {"tie_word_embeddings": True}, "tie_word_embeddings=True is not supported"),
        ("nanochat", {"final_logit_softcapping": -1.0}, "final_logit_softcapping=-1.0"),
        ("apertus", {"rope_parameters": {"rope_type": "llama3"}}, "scaled by 'llama3'"),
        ("apertus", {"hidden_act": "xielu"}, "hidden_act=xielu is not one of ours"),
    ],
)
def test_what_ours_is_not_is_refused(kind, change, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        config_json.settings_of(saved(tmp_path, KINDS[kind] | change))


def test_what_a_run_keeps_beside_init_from_is_one_list(tmp_path, monkeypatch):
    """Two files knew the settings by name: what words may give, and what is taken from the run."""
    (tmp_path / config_json.FILE).write_text(json.dumps(GPT2))
    words = [f"init_from={tmp_path}", "model.context_len=99", "model.dropout=0.2"]
    model = compose.compose_run(words).model
    assert (model.context_len, model.dropout, model.norm_eps) == (16, 0.2, 1e-5)
    with pytest.raises(ConfigError, match=r"leave out model\.norm_eps=0\.5"):
        compose.compose_run([*words, "model.norm_eps=0.5"])
    kept = (*Config.kept_with_init_from, "norm_eps")
    monkeypatch.setattr(Config, "kept_with_init_from", kept)
    assert compose.compose_run([*words, "model.norm_eps=0.5"]).model.norm_eps == 0.5
