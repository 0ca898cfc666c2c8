"""The loss of a large vocabulary in pieces of rows, against that of all logits at once."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lm import config, metrics, update
from lm.models import head_loss
from lm.models.bigram import Bigram
from lm.models.head_loss import Head, Sizes
from tests.models import small

B, T, C, V = 4, 9, 12, 31
LEARNED = [name for name, cfg in small.SETTINGS.items() if cfg.build(V).trainable]


@pytest.fixture
def in_pieces(monkeypatch):
    monkeypatch.setattr(head_loss, "CPU", Sizes(least=0, piece=0, rows=7))  # the last has fewer


def example(kind: str, dtype: torch.dtype) -> tuple[Head, torch.Tensor, torch.Tensor]:
    """A head, what it reads and targets, some of which do not count."""
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(-1, V, (B, T), generator=draw)
    if kind == "looked up":
        weight = torch.randn(V, V, dtype=dtype, generator=draw).requires_grad_()
        return Head(weight), torch.randint(V, (B, T), generator=draw), y
    weight = torch.randn(V, C, dtype=dtype, generator=draw).requires_grad_()
    bias = None
    if kind == "bias":
        bias = torch.randn(V, dtype=dtype, generator=draw).requires_grad_()
    softcap = 3.0 if kind == "softcap" else 0.0
    x = torch.randn(B, T, C, dtype=dtype, generator=draw).requires_grad_()
    return Head(weight, bias, softcap), x, y


@pytest.mark.parametrize("kind", ["plain", "bias", "softcap", "looked up"])
@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 3e-6), (torch.bfloat16, 3e-2)]
)
def test_loss_and_gradients_are_those_of_all_logits_at_once(kind, dtype, near, in_pieces):
    head, x, y = example(kind, dtype)
    leaves = [t for t in (x, head.weight, head.bias) if t is not None and t.requires_grad]
    plain = metrics.next_token_loss(head.logits(x), y)
    loss = head_loss.loss(x, head, y)
    assert loss.dtype == plain.dtype
    assert loss.item() == pytest.approx(plain.item(), rel=near)
    # The loss is a part of what is differentiated: a share of a batch, for one.
    expected = torch.autograd.grad(0.3 * plain, leaves)
    for a, b in zip(torch.autograd.grad(0.3 * loss, leaves), expected, strict=True):
        assert a.dtype == b.dtype
        assert (a - b).norm() <= near * b.norm()
    nats = metrics.nats(head.logits(x), y)
    torch.testing.assert_close(head_loss.nats(x, head, y), nats, rtol=near, atol=near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LEARNED)
def test_every_model_trains_and_is_scored_as_with_all_logits(name, dtype, monkeypatch):
    model, ids = small.build(name), small.batch()
    x, y = ids[:, :-1], ids[:, 1:]
    found, real = [], head_loss.loss
    for least in (1 << 60, 0):
        monkeypatch.setattr(head_loss, "CPU", Sizes(least, piece=0, rows=7))
        calls: list[int] = []
        monkeypatch.setattr(
            head_loss, "loss", lambda *args, calls=calls: calls.append(1) or real(*args)
        )
        loss = update.Loss(model, dtype)(x, y)
        assert len(calls) == (least == 0)
        grads = torch.autograd.grad(loss, list(model.parameters()))
        found.append((loss, torch.cat([g.flatten() for g in grads]), model.nats(x, y)))
    (loss, grad, nats), (its_loss, its_grad, its_nats) = found
    near = 1e-5 if dtype == torch.float32 else 2e-2
    assert its_loss.item() == pytest.approx(loss.item(), rel=near)
    assert (its_grad - grad).norm() < near * grad.norm()
    torch.testing.assert_close(its_nats, nats, rtol=1e-5, atol=1e-5)


class Largest(TorchDispatchMode):
    """Notes the bytes of the largest tensor that any operation gives."""

    n_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, torch.Tensor):
                self.n_bytes = max(self.n_bytes, tensor.nbytes)
        return found


@pytest.mark.slow  # the first dispatch mode of a process imports PyTorch's compiler
@pytest.mark.parametrize("name", ["transformer", "capped", "gru", "mlp"])
def test_no_tensor_of_a_step_or_of_a_score_comes_near_the_size_of_all_logits(name, monkeypatch):
    model = small.build(name, 2000)
    x, y = small.batch(40)[:, :-1], small.batch(40)[:, 1:]
    all_logits = x.numel() * 2000 * 4
    largest = {}
    for least in (1 << 60, 0):
        monkeypatch.setattr(head_loss, "CPU", Sizes(least, piece=20 * 2000, rows=1))
        with Largest() as of_step:
            model.next_token_loss(x, y).backward()
        with Largest() as of_score, torch.inference_mode():
            model.nats(x, y)
        largest[least] = (of_step.n_bytes, of_score.n_bytes)
    assert largest[1 << 60] == (all_logits, all_logits)
    assert max(largest[0]) < all_logits / 5  # an activation or a weight


def test_the_default_run_and_smaller_ones_have_all_logits_at_once():
    """Their numbers stay what they were, to the bit."""
    cfg = config.TransformerConfig()
    model = small.build("transformer", config.BPEConfig().vocab_size)
    B = config.TrainConfig().batch_size
    assert not model.goes_in_pieces(torch.zeros(B, cfg.context_len))
    assert not model.goes_in_pieces(torch.zeros(1 << 12))  # a pass of an evaluation
    real = small.build("transformer", 50_257)
    assert real.goes_in_pieces(torch.zeros(B, cfg.context_len))
    assert not real.goes_in_pieces(torch.zeros(B, cfg.context_len, device="meta"))


def test_a_subclass_that_computes_something_else_is_asked_for_its_logits(in_pieces):
    class Flat(Bigram):
        def forward(self, ids):
            return 0 * super().forward(ids)

    model = Flat(config.BigramConfig(), V)
    model.table.weight.data.normal_()
    x, y = torch.randint(V, (2, B, T))
    assert model.next_token_loss(x, y).item() == pytest.approx(torch.tensor(V).log().item())
    assert model.nats(x, y).mean().item() == pytest.approx(torch.tensor(V).log().item())


@pytest.mark.parametrize("name", ["transformer", "capped", "mlp", "bigram"])
def test_a_step_of_a_gpu_reads_no_number_back(name, monkeypatch):
    """On the meta device there are no numbers: asking for one is an error."""
    monkeypatch.setattr(head_loss, "GPU", Sizes(least=0, piece=0, rows=7))
    model, ids = small.build(name).to("meta"), small.batch().to("meta")
    model.next_token_loss(ids[:, :-1], ids[:, 1:]).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.faults
@pytest.mark.parametrize("name", ["transformer", "capped", "mlp", "bigram"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_is_the_same(name, dtype, in_pieces):
    model, ids = small.build(name), small.batch()
    plain = update.Loss(model, dtype)
    compiled = torch.compile(plain, dynamic=False, fullgraph=True)
    found = []
    for loss_fn in (plain, compiled):
        loss = loss_fn(ids[:, :-1], ids[:, 1:])
        grads = torch.autograd.grad(loss, list(model.parameters()))
        found.append(torch.cat([loss[None], *(g.flatten() for g in grads)]))
    near = 1e-5 if dtype == torch.float32 else 2e-2
    assert (found[0] - found[1]).norm() < near * found[0].norm()
