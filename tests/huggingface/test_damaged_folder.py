"""A folder of Hugging Face's form in which anything may be wrong: one line says what."""

import dataclasses
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from lm import config
from lm.huggingface import config_json, weights

WEIGHT_DAMAGE = {
    "no dimension": (lambda t: t.sum(), "holds another model"),
    "one more dimension": (lambda t: t[None], "holds another model"),
    "no rows": (lambda t: t[:0], r"holds another model|0 rows in the embedding"),
    "one row": (lambda t: t.reshape(1, -1) if t.ndim == 2 else t[1:], "holds another model"),
    "NaN": (lambda t: t * torch.nan, "has values that are not finite"),
    "infinite": (lambda t: t + torch.inf, "has values that are not finite"),
    "integers": (lambda t: t.int(), "of floating-point numbers"),
    "complex": (lambda t: t.to(torch.complex64), "of floating-point numbers"),
    "half": (lambda t: t.half(), ""),
    "eight bits": (lambda t: t.to(torch.float8_e4m3fn), ""),
}
FAMILIES = {
    "gpt2": {"positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": True},
    "llama": {"activation": "swiglu", "tie": False, "n_kv_head": 1},
    "apertus": {"qk_norm": True},
    "nanochat": {"qk_norm": True, "embed_norm": True, "tie": False},
}


def our_folder(family, folder):
    """A folder as transformers would write it, made by us, and its tensors."""
    cfg = config.TransformerConfig(
        **{"n_layer": 1, "n_head": 2, "n_embd": 8, "n_mlp": 12, "context_len": 6, "qk_norm": False}
        | FAMILIES[family]
    )
    tensors = {k: v.contiguous().clone() for k, v in weights.to_hf(cfg.build(9)).items()}
    (folder / "config.json").write_text(json.dumps(config_json.to_hf(cfg, 9, 8)))
    save_file(tensors, folder / "model.safetensors")
    return cfg, tensors


def opened(folder):
    """What init_from does: settings, shapes before memory is taken, weights."""
    cfg = config.TransformerConfig(**config_json.settings_of(folder))
    weights.check_fits(folder, cfg)
    model = cfg.build(9)
    weights.load(folder, model)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_damage_of_every_weight_is_told_in_one_line(family, tmp_path):
    _, tensors = our_folder(family, tmp_path)
    opened(tmp_path)
    for number, name in enumerate(tensors):
        for kind, (change, says) in [*WEIGHT_DAMAGE.items()][number % 4 :: 4]:
            damaged = tensors | {name: change(tensors[name]).contiguous()}
            save_file(damaged, tmp_path / "model.safetensors")
            if not says:
                opened(tmp_path)
                continue
            with pytest.raises(ValueError, match=says) as refused:
                opened(tmp_path)
            assert "\n" not in str(refused.value), (name, kind)
        save_file({k: v for k, v in tensors.items() if k != name}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match="has no weight called"):
            opened(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_of_a_giant_is_compared_with_the_weights_before_memory_is_taken(family, tmp_path):
    our_folder(family, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    keys = ["n_layer", "n_embd", "n_inner", "n_positions"]
    if family != "gpt2":
        keys = ["num_hidden_layers", "hidden_size", "intermediate_size"]
    for key in keys:
        giant = {key: 65_536 if key != keys[0] else 1_000}
        if family != "gpt2" and key == "hidden_size":
            giant["head_dim"] = None
        (tmp_path / "config.json").write_text(json.dumps(values | giant))
        cfg = config.TransformerConfig(**config_json.settings_of(tmp_path))
        with pytest.raises(ValueError, match=r"holds another model|has no weight called"):
            weights.check_fits(tmp_path, cfg)


def test_a_shorter_window_and_a_padded_embedding_fit(tmp_path):
    _, tensors = our_folder("gpt2", tmp_path)
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 6, 6, dtype=torch.uint8)  # GPT-2's own mask
    tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    name = "transformer.wte.weight"
    tensors[name] = torch.cat((tensors[name], torch.zeros(3, 8)))
    save_file(tensors, tmp_path / "model.safetensors")
    assert opened(tmp_path).vocab_size == 9
    weights.check_fits(tmp_path, dataclasses.replace(opened(tmp_path).cfg, context_len=4))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("model.safetensors", b"", "cannot be read"),
        ("model.safetensors", b"<!DOCTYPE html>" * 9, "cannot be read"),
        (
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid x",
            "git -C .* lfs",
        ),
        ("model.safetensors.index.json", b"{}", "weight_map"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": 3}}', "weight_map"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../../x"}}', "theirs/x cannot be"),
        ("model.safetensors.index.json", b'{"weight_map": {}}', "0 weights"),
        ("model.safetensors.index.json", b"[" * 100_000, "cannot be read"),
    ],
)
def test_files_that_hold_no_weights_are_named(name, content, says, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    our_folder("gpt2", folder)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        opened(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ValueError, match="is not a plain file"):
        opened(folder)


def test_a_folder_of_links_as_hugging_faces_cache_has_is_read(tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    our_folder("gpt2", blobs)
    (blobs / "index").write_text('{"weight_map": {"a": "part.safetensors"}}')
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "config.json").symlink_to("../blobs/config.json")
    (folder / "part.safetensors").symlink_to("../blobs/model.safetensors")
    (folder / "model.safetensors.index.json").symlink_to("../blobs/index")
    opened(folder)
