"""Settings that a class of transformers has are found in both directions; others are refused."""

import json

import pytest

from lm import config
from lm.huggingface import config_json


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
        config_json.family(config.TransformerConfig(**llama | change))
    assert reason in str(refused.value)


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
        config_json.settings_of(tmp_path)
    assert message in str(refused.value)


def test_init_from_nothing_is_told_in_one_line(command):
    done = command("lm.train", "init_from=nowhere")
    assert done.returncode == 2
    assert "init_from=nowhere: there is no nowhere/config.json" in done.stderr
    assert done.stderr.count("\n") == 1
