"""Checks of training: the first loss, learning one batch, gradients, optimizers, speed."""

import math
import time
from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from lm import config, metrics
from lm.check.bench import Bench, Broken, Skip
from lm.models.base import LanguageModel
from lm.optim import contract
from lm.optim.groups import AdamW
from lm.optim.schedule import set_rates, update_scale
from lm.record import optimizer_state

LOSS_SLACK = 0.25  # nats between an untrained model's loss and ln V
OVERFIT_STEPS = 300
TIMED_STEPS = 5


def first_loss(bench: Bench) -> str:
    """An untrained model predicts no better and no worse than a blind guess."""
    model = bench.model()
    if not model.trainable:
        raise Skip("counts: nothing to start from")
    ids = bench.ids(8, bench.T + 1)
    loss = metrics.next_token_loss(model(ids[:, :-1]), ids[:, 1:]).item()
    uniform = math.log(bench.vocab_size)
    if not abs(loss - uniform) < LOSS_SLACK:
        raise Broken(
            f"the loss before training is {loss:.3f}, a blind guess has ln V = {uniform:.3f}: "
            "start the last layer with smaller weights"
        )
    return f"{loss:.3f} nats before training, a blind guess has ln V = {uniform:.3f}"


def overfit(bench: Bench) -> str:
    """The model learns one small batch as far as its memory allows."""
    model = bench.model()
    if not model.trainable:
        raise Skip("counts: no gradient steps")
    ids = bench.ids(4, bench.T + 1)
    x, y = ids[:, :-1], ids[:, 1:]
    lowest = lowest_loss(ids, model.memory)
    range_of_losses = math.log(bench.vocab_size) - lowest
    lr = 3e-3 * model.cfg.lr_scale
    optimizer = AdamW(model.parameters(), lr, weight_decay=0.0)
    loss = math.inf
    for step in range(1, OVERFIT_STEPS + 1):
        step_loss = metrics.next_token_loss(model(x), y)
        loss = step_loss.item()
        if loss < lowest + 0.1 * range_of_losses:
            return f"{loss:.3f} nats after {step} steps on one batch (possible: {lowest:.3f})"
        optimizer.zero_grad()
        step_loss.backward()
        optimizer.step()
    if loss < lowest + 0.5 * range_of_losses:
        return f"slowly: {loss:.3f} nats after {OVERFIT_STEPS} steps on one batch"
    raise Broken(
        f"{loss:.3f} nats after {OVERFIT_STEPS} steps on one batch of {y.numel()} tokens, where "
        f"{lowest:.3f} is possible: it does not learn"
    )


def lowest_loss(ids: Tensor, memory: int) -> float:
    """The lowest loss on ids (B, T), in nats a token, for a model that sees memory + 1 tokens.

    It is the entropy of the next token given those tokens, over these texts alone.
    """
    pairs: Counter[tuple[tuple[int, ...], int]] = Counter()
    contexts: Counter[tuple[int, ...]] = Counter()
    for row in ids.tolist():
        for t in range(len(row) - 1):
            context = tuple(row[max(0, t - memory) : t + 1])
            contexts[context] += 1
            pairs[context, row[t + 1]] += 1
    nats = 0.0
    for (context, _), n in pairs.items():
        nats -= n * math.log(n / contexts[context])
    return max(0.0, nats / pairs.total())


def gradients(bench: Bench) -> str:
    """The loss has a finite gradient, not zero, for every parameter."""
    model = bench.model(perturbed=True)
    if not model.trainable:
        raise Skip("counts: no gradients")
    ids = bench.ids(4, bench.T + 1)
    metrics.next_token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
    dead = []
    wild = []
    for name, p in model.named_parameters():
        if p.grad is None or not p.grad.any():
            dead.append(name)
        elif not p.grad.isfinite().all():
            wild.append(name)
    if dead:
        raise Broken(f"no gradient reaches {', '.join(dead)}")
    if wild:
        raise Broken(f"the gradient of {', '.join(wild)} is infinite or not a number")
    return f"all {len(list(model.parameters()))} parameters get one"


def groups(bench: Bench) -> str:
    """Every optimizer takes each parameter exactly once."""
    model = bench.model()
    if not model.trainable:
        raise Skip("counts: no optimizer")
    texts = []
    for name, cls in config.options("optimizer").items():
        cfg = bench.cfg.optimizer if bench.cfg.optimizer.name == name else cls()
        assert isinstance(cfg, config.OptimizerConfig)
        sizes = []
        # Refuses a parameter that is taken twice or not at all.
        for optimizer in contract.build_optimizers(cfg, model):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            sizes.append(sum(p.numel() for p in parameters))
        texts.append(f"{name} {' + '.join(f'{n:,}' for n in sizes)}")
    return f"every parameter once: {', '.join(texts)}"


def optimizer_steps(bench: Bench) -> str:
    """One update by the chosen optimizer moves every parameter, and a resumed one goes on alike."""
    model = bench.model()
    if not model.trainable:
        raise Skip("counts: no optimizer")
    cfg = bench.cfg.optimizer
    optimizers = contract.build_optimizers(cfg, model)
    set_rates(optimizers, 1.0)
    before = [p.detach().clone() for p in model.parameters()]
    _update(bench, model, optimizers)
    still = []
    for (name, p), old in zip(model.named_parameters(), before, strict=True):
        if not p.isfinite().all():
            raise Broken(f"{cfg.name} made {name} infinite or not a number in one step")
        if p.grad is not None and p.grad.any() and torch.equal(p, old):
            still.append(name)
    if still and any(group["lr"] for o in optimizers for group in o.param_groups):
        raise Broken(f"{cfg.name} did not move {', '.join(still)}: `step` reads p.grad and lr")
    twin = bench.model()
    twin.load_state_dict(model.state_dict())
    resumed = contract.build_optimizers(cfg, twin)
    tensors, sizes = optimizer_state.pack(optimizers)
    optimizer_state.unpack(resumed, {key: t.clone() for key, t in tensors.items()}, sizes)
    set_rates(resumed, 1.0)
    _update(bench, model, optimizers)
    _update(bench, twin, resumed)
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        if not torch.equal(p, q):
            raise Broken(
                f"{cfg.name} moves {name} otherwise after a resume: keep what `step` remembers in "
                "self.state[p], as tensors"
            )
    return f"{cfg.name} moves every parameter, and goes on alike from a checkpoint"


def _update(bench: Bench, model: LanguageModel, optimizers: list[torch.optim.Optimizer]) -> None:
    ids = bench.ids(4, bench.T + 1)
    model.zero_grad(set_to_none=True)
    metrics.next_token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
    for optimizer in optimizers:
        optimizer.step()


def schedule(bench: Bench) -> str:
    """The schedule gives a rate at every place of a run."""
    cfg = bench.cfg.schedule
    contract.check_schedule(cfg)
    shares = [update_scale(cfg, i / 10, (i + 1) / 10) for i in range(10)]
    return f"{cfg.name}: of the highest rate {' '.join(f'{share:.2g}' for share in shares)}"


def speed(bench: Bench) -> str:
    """The model's training speed beside that of a transformer of about as many parameters."""
    model = bench.model()
    if not model.trainable:
        raise Skip("counts: no training steps")
    own_speed, own_bytes = _training_cost(bench, model)
    rival_cfg = replace(bench.cfg, model=_rival(bench, model.n_params()))
    rival_bench = replace(bench, cfg=rival_cfg)
    rival = rival_bench.model()
    rival_speed, rival_bytes = _training_cost(rival_bench, rival)
    return (
        f"{own_speed:,.0f} tokens/s in training, {own_bytes / 1e6:.1f} MB kept for the "
        f"backward pass; a transformer of {rival.n_params():,} parameters: {rival_speed:,.0f} and "
        f"{rival_bytes / 1e6:.1f} MB"
    )


def _rival(bench: Bench, n_params: int) -> config.TransformerConfig:
    """The transformer of 4 layers with the nearest number of parameters."""

    def distance(n_embd: int) -> int:
        return abs(bench.vocab_size * n_embd + 12 * 4 * n_embd * n_embd - n_params)

    widths = [*range(16, 256, 16), *range(256, 2049, 64)]
    context_len = bench.cfg.model.context_len
    return config.TransformerConfig(context_len=context_len, n_embd=min(widths, key=distance))


def _training_cost(bench: Bench, model: LanguageModel) -> tuple[float, int]:
    """Training tokens a second, and bytes kept from the forward for the backward pass."""
    ids = bench.ids(8, bench.cfg.model.context_len + 1)
    x, y = ids[:, :-1], ids[:, 1:]
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}  # bytes by the address of the storage

    def note_saved(saved_tensor: Tensor) -> Tensor:
        storage = saved_tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved_tensor

    optimizer = AdamW(model.parameters(), lr=1e-4)
    with torch.autograd.graph.saved_tensors_hooks(note_saved, lambda tensor: tensor):
        metrics.next_token_loss(model(x), y).backward()
    seconds = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        metrics.next_token_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if bench.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return y.numel() / min(seconds), sum(kept.values())
