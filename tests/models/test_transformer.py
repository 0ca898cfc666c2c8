"""The transformer's parts against slow versions of themselves, and the choices of its presets."""

import math

import pytest
import torch
import torch.nn.functional as F

from lm.config import TransformerConfig
from lm.models import transformer
from lm.models.attention import attention
from lm.models.transformer import Transformer

V = 31


def make(**changes) -> Transformer:
    torch.manual_seed(0)
    sizes = {"context_len": 12, "n_layer": 2, "n_head": 4, "n_embd": 32}
    return TransformerConfig(**{**sizes, **changes}).build(V).eval()


def test_a_model_compiled_or_in_bfloat16_does_not_need_complex_numbers(monkeypatch):
    model, ids = make(), torch.randint(V, (2, 12))
    fast = model(ids)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(model(ids), fast)
    monkeypatch.undo()
    torch.testing.assert_close(model.bfloat16()(ids), fast, atol=0.1, rtol=0)


def test_a_model_with_written_out_attention_gives_the_same_logits(monkeypatch):
    model, ids = make(n_kv_head=2), torch.randint(V, (2, 12))
    fused = model(ids)

    def plain(q, k, v, mask, dropout, causal, enable_gqa):
        n = q.shape[1] // k.shape[1]
        assert mask is None and causal and enable_gqa
        return attention(q, k.repeat_interleave(n, 1), v.repeat_interleave(n, 1))

    monkeypatch.setattr(F, "scaled_dot_product_attention", plain)
    torch.testing.assert_close(model(ids), fused)


def test_a_tied_head_is_stored_and_counted_once():
    tied, untied = make(tie=True), make(tie=False)
    assert untied.n_params() - tied.n_params() == V * 32
    assert "head.weight" not in tied.state_dict() and "head.weight" in untied.state_dict()


def test_softcap_bounds_the_logits():
    model = make(softcap=2.0)
    model.wte.weight.data *= 1000
    assert model(torch.randint(V, (1, 12))).abs().max() <= 2.0


def test_dropout_acts_in_training_alone():
    model, ids = make(dropout=0.5), torch.randint(V, (1, 12))
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_flops_per_token_count_the_matrix_products_torch_counts():
    """torch's counter sees forward and backward of one batch; ours is a formula."""
    from torch.utils.flop_counter import FlopCounterMode

    model = make(activation="gelu", n_layer=3)
    ids = torch.randint(V, (2, 12))
    with FlopCounterMode(display=False) as counter:
        model(ids).sum().backward()
    attention_part = 12 * 3 * 32 * 12
    linear = counter.get_total_flops() / ids.numel() - attention_part
    ours = model.flops_per_token() - attention_part
    assert linear == pytest.approx(ours, rel=0.15)  # it counts the fused attention by other rules


def test_llamas_mlp_has_two_thirds_of_the_width_and_no_more_weights():
    plain, gated = make(activation="gelu"), make(activation="swiglu")
    size = [sum(p.numel() for p in m.blocks[0].mlp.parameters()) for m in (plain, gated)]
    assert size[1] == pytest.approx(size[0], rel=0.1)


@pytest.mark.parametrize("vocab_size", [65, 50_257])
@pytest.mark.parametrize("n_embd", [128, 768])
def test_first_loss_is_near_that_of_guessing_at_real_sizes(n_embd, vocab_size):
    torch.manual_seed(0)
    cfg = TransformerConfig(n_embd=n_embd, n_head=4, context_len=16, n_layer=2)
    ids = torch.randint(vocab_size, (4, 17))
    with torch.no_grad():
        logits = cfg.build(vocab_size)(ids[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item()
    assert abs(loss - math.log(vocab_size)) < 0.5


@pytest.mark.parametrize("n_layer", [2, 8])
def test_the_outputs_that_add_up_in_the_stream_start_smaller_the_more_there_are(n_layer):
    """0.02 / sqrt(2 n_layer), as in GPT-2; without the root no test failed."""
    torch.manual_seed(0)
    model = TransformerConfig(n_embd=128, n_head=4, context_len=16, n_layer=n_layer).build(64)
    expected = 0.02 / math.sqrt(2 * n_layer)
    for block in model.blocks:
        for layer in (block.attn.proj, block.mlp.down):
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert block.mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_initial_sizes_are_those_of_the_settings():
    torch.manual_seed(0)
    model = TransformerConfig(
        n_embd=128, n_head=4, context_len=64, n_layer=2, positions="learned", tie=False,
        init_std=0.06, embed_std=0.1,
    ).build(512)  # fmt: skip
    sizes = {name: weight.std().item() for name, weight in model.named_parameters()}
    for name in ("wte.weight", "wpe.weight"):
        assert sizes[name] == pytest.approx(0.1, rel=0.05)
    for name in ("head.weight", "blocks.0.mlp.up.weight", "blocks.1.attn.qkv.weight"):
        assert sizes[name] == pytest.approx(0.06, rel=0.05)
    assert sizes["blocks.1.mlp.down.weight"] == pytest.approx(0.06 / 2, rel=0.05)


def test_gpt2_and_llama_have_the_sizes_of_the_originals():
    gpt2 = TransformerConfig(
        context_len=1024, n_layer=12, n_head=12, n_embd=768, positions="learned",
        norm="layernorm", activation="gelu", qk_norm=False, bias=True,
    )  # fmt: skip
    with torch.device("meta"):
        assert Transformer(gpt2, 50_257).n_params() == 124_439_808


def test_the_compiler_s_gelu_is_gelu(monkeypatch):
    x = torch.linspace(-9, 9, 999, dtype=torch.float64)
    plain = transformer.gelu(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(transformer.gelu(x), plain, rtol=1e-8, atol=1e-8)
