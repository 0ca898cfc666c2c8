"""What every model must do, tried on each kind of model."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lm import config
from lm.models.base import LanguageModel
from tests.models.small import CONTEXT, SETTINGS, V, batch, build, text


def loss_of(model: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@pytest.fixture(params=list(SETTINGS))
def name(request) -> str:
    return request.param


@pytest.fixture(params=[n for n in SETTINGS if SETTINGS[n].build(V).trainable])
def trainable_name(request) -> str:
    return request.param


def test_ids_of_shape_b_t_give_float32_logits_of_shape_b_t_v(name):
    model = build(name)
    assert isinstance(model, LanguageModel)
    assert (model.vocab_size, model.context_len) == (V, CONTEXT)
    for B, T in ((1, 1), (2, 5), (3, CONTEXT)):
        logits = model(batch(B, T))
        assert logits.shape == (B, T, V) and logits.dtype == torch.float32
        assert logits.isfinite().all()


def test_a_later_token_never_changes_earlier_logits(name):
    model, ids = build(name), batch()
    before = model(ids)
    for t in (1, 7, CONTEXT - 1):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 5) % V
        assert torch.equal(model(changed)[:, :t], before[:, :t])
        assert not torch.equal(model(changed)[:, t:], before[:, t:])


def test_rows_of_a_batch_do_not_see_each_other(name):
    model, ids = build(name), batch()
    alone = torch.cat([model(row[None]) for row in ids])
    torch.testing.assert_close(model(ids), alone, atol=1e-5, rtol=1e-5)


def test_initial_loss_is_near_that_of_guessing(trainable_name):
    torch.manual_seed(0)
    model = SETTINGS[trainable_name].build(1000)
    loss = loss_of(model, torch.randint(1000, (8, CONTEXT)))
    assert abs(loss.item() - math.log(1000)) < 0.15


@pytest.mark.parametrize("optimizer", config.options("optimizer"))
def test_one_batch_can_be_learned_by_heart(trainable_name, optimizer):
    """Also that the optimizers of the model reach all of it: the loss of a bigram is the floor."""
    torch.manual_seed(0)
    model, ids = SETTINGS[trainable_name].build(V), batch(1, CONTEXT)
    floor = 0.0
    if trainable_name == "bigram":  # sees one token: what follows it in this batch stays open
        pairs = torch.zeros(V, V)
        pairs.index_put_((ids[0, :-1], ids[0, 1:]), torch.ones(1), accumulate=True)
        rows = pairs / pairs.sum(1, keepdim=True).clamp(min=1)
        floor = -(pairs * rows.clamp(min=1e-9).log()).sum().item() / (CONTEXT - 1)
    optimizers = config.options("optimizer")[optimizer]().build(model)
    for opt in optimizers:
        for group in opt.param_groups:
            group["lr"] = group["base_lr"] * (30 if trainable_name == "bigram" else 2)
    for _ in range(120):
        loss = loss_of(model, ids)
        model.zero_grad()
        loss.backward()
        for opt in optimizers:
            opt.step()
    assert loss.item() < floor + 0.2


def test_gradients_reach_every_parameter(trainable_name):
    model = build(trainable_name).train()
    loss_of(model, torch.arange(V).repeat(2)[: 3 * CONTEXT].view(3, CONTEXT)).backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_counted_probabilities_sum_to_1(name):
    model = build(name)
    if model.trainable:
        pytest.skip("its logits are no log-probabilities: softmax makes them sum to 1")
    sums = model(torch.randint(V, (4, CONTEXT))).exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-5, rtol=0)


def test_state_dict_goes_into_a_new_model_and_brings_the_same_logits(name, tmp_path):
    from safetensors.torch import load_file, save_file

    model = build(name)
    save_file(model.state_dict(), tmp_path / "model.safetensors")  # refuses tensors that share
    other = SETTINGS[name].build(V).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert torch.equal(other(batch()), model(batch()))
    assert other.n_params() == model.n_params() > 0


@pytest.mark.parametrize("sizes", [(1,) * CONTEXT, (5, 1, 1, 9), (CONTEXT,), (3, 4, 5, 4)])
def test_steps_of_any_size_end_at_the_logits_of_forward(name, sizes):
    model, ids = build(name), batch()
    whole, state, read = model(ids), model.start(len(ids)), 0
    for size in sizes:
        logits = model.step(ids[:, read : read + size], state)
        read += size
        torch.testing.assert_close(logits, whole[:, read - 1], atol=1e-5, rtol=1e-5)


def test_steps_of_rows_with_different_lengths_end_at_the_logits_of_forward(name):
    """Padding is on the right, any token; rows are then read on in chunks, also uneven ones."""
    model, ids = build(name), batch()
    whole, state, read = model(ids), model.start(3), [0, 0, 0]
    for lengths in ([3, 7, 5], [1, 1, 1], [2, 1, 4], [1, 1, 1], [4, 1, 1]):
        chunk = torch.full((3, max(lengths)), V - 1)
        for row, n in enumerate(lengths):
            chunk[row, :n] = ids[row, read[row] : read[row] + n]
        logits = model.step(chunk, state, lengths)
        read = [old + n for old, n in zip(read, lengths, strict=True)]
        expected = whole[torch.arange(3), torch.tensor(read) - 1]
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_a_state_keeps_and_replaces_rows(name):
    model, ids = build(name), batch()
    state = model.start(3)
    model.step(ids[:, :6], state, [6, 4, 5])
    state.keep([2, 0])
    other = model.start(1)
    model.step(ids[1:2, :2], other)
    state.put([0], other)
    logits = model.step(torch.stack((ids[1, 2:3], ids[0, 6:7])), state)
    whole = model(ids)
    expected = torch.stack((whole[1, 2], whole[0, 6]))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_a_window_above_the_context_is_refused_or_read_whole(name):
    model = build(name)
    ids = torch.zeros(1, CONTEXT + 1, dtype=torch.long)
    if not model.limited:
        assert model(ids).shape == (1, CONTEXT + 1, V)
        return
    with pytest.raises(ValueError, match=f"{CONTEXT + 1} tokens .*context_len={CONTEXT}"):
        model(ids)
    state = model.start(1)
    model.step(ids[:, :CONTEXT], state)
    with pytest.raises(ValueError, match=f"context_len={CONTEXT}"):
        model.step(ids[:, :1], state)


def test_counting_costs_no_flops_and_training_some(name):
    model = build(name)
    assert (model.flops_per_token() > 0) == (model.trainable and name != "bigram")


@pytest.mark.parametrize("name", ["bigram_counts", "ngram"])
def test_counts_take_a_vocabulary_of_50257_with_memory_for_the_pairs_seen(name):
    model = SETTINGS[name].build(50_257)
    ids = np.random.default_rng(0).integers(0, 50_257, 20_000).astype(np.uint16)
    model.fit(ids)
    stored = sum(t.numel() * t.element_size() for t in model.buffers())
    assert stored < 20_000 * 200 + 50_257 * 40
    logits = model(torch.from_numpy(ids[:8].astype(np.int64)).view(2, 4))
    assert logits.shape == (2, 4, 50_257)
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["bigram_counts", "ngram"])
@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_counts_of_very_short_texts_are_still_probabilities(name, n):
    model = SETTINGS[name].build(V)
    model.fit(np.arange(n).astype(np.uint16))
    sums = model(batch()).exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["bigram_counts", "ngram"])
def test_counts_read_a_memory_map_and_do_not_write_to_it(name, tmp_path):
    text().tofile(tmp_path / "tokens.bin")
    model = SETTINGS[name].build(V)
    model.fit(np.memmap(tmp_path / "tokens.bin", dtype=np.uint16, mode="r"))
    assert torch.equal(model(batch()), build(name)(batch()))


def damage(tables: dict[str, torch.Tensor], how: str) -> None:
    keys = next(k for k in tables if k in ("pairs", "keys_2"))
    counts = "counts" if keys == "pairs" else "counts_2"
    if how == "order":
        tables[keys] = tables[keys].flip(0)
    elif how == "range":
        tables[keys][-1] = 2**62
    elif how == "negative":
        tables[keys][0] = -1
    elif how == "behind":  # the first key that no context has
        size = V if keys == "pairs" else len(tables["keys_1"])
        tables[keys][-1] = size * V
    elif how == "twice":
        tables[keys][1] = tables[keys][0]
    elif how == "huge":
        tables[counts][0] = 2**40 + 1
    elif how == "length":
        tables[counts] = tables[counts][:-1]
    elif how == "count":
        tables[counts][0] = 0
    elif how == "dtype":
        tables[counts] = tables[counts].float()
    elif how == "shape":
        tables[counts] = tables[counts][None]


@pytest.mark.parametrize(
    "how",
    ["order", "range", "negative", "behind", "twice", "huge", "length", "count", "dtype", "shape"],
)
@pytest.mark.parametrize("name", ["bigram_counts", "ngram"])
def test_damaged_tables_are_refused_in_one_line(name, how):
    tables = {k: v.clone() for k, v in build(name).state_dict().items()}
    damage(tables, how)
    with pytest.raises(ValueError, match=f"tables of model {name} are damaged") as error:
        SETTINGS[name].build(V).load_state_dict(tables)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["bigram_counts"])
def test_counts_stay_on_the_device_of_their_model(name):
    model = build(name).to("meta")
    model.fit(np.array([1, 2, 1], np.uint16))
    assert model.device.type == "meta" and model.n_params() == 2
