"""The fast path for one token a row gives what the plain path gives, whatever the model."""

import dataclasses

import pytest
import torch

from lm.config import TransformerConfig
from lm.generate import generate
from lm.models import decode
from lm.models.slots import Slots
from tests.models import small

FIELDS = {field.name: field for field in dataclasses.fields(TransformerConfig)}
ACTIVATIONS = FIELDS["activation"].metadata["choices"]
KINDS = [n for n, cfg in small.SETTINGS.items() if hasattr(cfg, "n_head")]


def logits(model, ids: torch.Tensor) -> list[torch.Tensor]:
    """Of three prompts of different lengths, three more tokens, two rows less, and one token."""
    state = model.start(3)
    found = [model.step(ids[:, :6], state, [6, 4, 5])]
    found += [model.step(ids[:, t : t + 1], state) for t in (6, 7, 8)]
    state.keep([2])
    return [*found, model.step(ids[2:, 9:10], state)]


@pytest.mark.parametrize("reorder", [0, 10**9], ids=["oneDNN", "MKL"])
@pytest.mark.parametrize("name", KINDS)
def test_decoding_equals_the_plain_path(name, reorder, monkeypatch):
    model, ids = small.build(name), small.batch()
    monkeypatch.setattr(decode, "MIN_REORDERED", reorder)
    fast = logits(model, ids)
    monkeypatch.setattr(decode, "serves", lambda model: False)
    plain = logits(model, ids)
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation_is_decoded_as_it_is_trained(activation):
    torch.manual_seed(0)
    cfg = dataclasses.replace(small.SETTINGS["transformer"], activation=activation)
    model, ids = cfg.build(small.V).eval(), small.batch()
    whole = model(ids)  # (B, T, V)
    state = model.start(len(ids))
    for t in range(ids.shape[1]):
        one = model.step(ids[:, t : t + 1], state)  # (B, V)
        torch.testing.assert_close(one, whole[:, t], atol=1e-5, rtol=1e-5)
    assert state.decoder is not None


def test_an_activation_that_is_only_named_in_the_settings_is_refused():
    """It was trained as GELU, and decoded as SwiGLU."""
    model = small.build("transformer")
    for block in model.blocks:
        block.mlp.activation = "new"
    with pytest.raises(ValueError, match="activation=new"):
        model(small.batch())
    with pytest.raises(ValueError, match="activation=new"):
        model.step(small.batch()[:, :1], model.start(3))


def test_decoding_serves_float32_on_a_cpu_in_evaluation_alone():
    model = small.build("transformer")
    assert decode.serves(model)
    assert not decode.serves(model.train())
    assert not decode.serves(model.eval().bfloat16())
    with torch.device("meta"):
        assert not decode.serves(small.SETTINGS["transformer"].build(9).eval())


def test_weights_changed_between_two_texts_are_those_that_are_read():
    model, ids = small.build("transformer"), small.batch(1)
    before = model.step(ids[:, :1], model.start(1))
    model.wte.weight.data += 0.1 * torch.randn_like(model.wte.weight)
    after = model.step(ids[:, :1], model.start(1))
    torch.testing.assert_close(after, model(ids[:, :1])[:, 0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, after)


def compiled_logits(model, ids: torch.Tensor) -> list[torch.Tensor]:
    state = model.start(3)
    state.compile()
    found = [model.step(ids[:, :6], state, [6, 4, 5])]
    return found + [model.step(ids[:, t : t + 1], state) for t in (6, 7, 8)]


@pytest.mark.parametrize("name", KINDS)
def test_a_step_of_fixed_shapes_equals_the_plain_path(name, monkeypatch):
    model, ids = small.build(name), small.batch()
    monkeypatch.setattr(Slots, "compiled_step", lambda: Slots.step)
    fixed = compiled_logits(model, ids)
    plain = logits(model, ids)[:4]  # it goes on with fewer rows
    for a, b in zip(fixed, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["transformer", "gpt2"])
def test_compiled_it_writes_the_same_text_beyond_the_context_and_when_rows_end(name):
    model = small.build(name)
    torch.compiler.reset()
    prompts, how = [[1, 2], [3], [4, 5, 6]], {"max_tokens": 40, "seed": 3}
    for stop_ids in ((), (7,)):
        plain = list(generate(model, prompts, stop_ids=stop_ids, **how))
        assert plain == list(generate(model, prompts, stop_ids=stop_ids, compiled=True, **how))
    assert len(plain) < 40 or None in plain[-1]
