"""Rules of the doctor about the model itself: losses, units, activations, gradients, updates.

None of them has something to say about a model that counts instead of learning by gradients.
"""

import contextlib
import math
import statistics
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lm import metrics
from lm.check.evidence import Evidence, Finding, nats_by_temperature
from lm.check.log_rules import overtrained
from lm.lens import probe
from lm.models.base import LanguageModel
from lm.optim.contract import build_optimizers
from lm.record import checkpoint

SATURATED = 0.99  # of a unit whose range ends at 1


def gap(evidence: Evidence) -> Finding | None:
    """The loss on text the model was trained on beside that on as much new text."""
    if not evidence.can_score:
        return None
    train_ids = evidence.train[: evidence.n_scored]
    known = nats_by_temperature(evidence.model, train_ids, [1.0])[1.0]
    new = evidence.val_nats[1.0]
    text = f"{known:.4f} nats a token on text it trained on, {new:.4f} on new text"
    if new - known > 0.25 * new:
        advice = "it learns the text by heart: more text, model.dropout=0.1"
        if overtrained(evidence.record):
            advice += ", fewer train.steps"
        return Finding("train, val", "look", text, advice)
    return Finding("train, val", "ok", text)


def confidence(evidence: Evidence) -> Finding | None:
    if not evidence.can_score:
        return None
    return judge_confidence(evidence.val_nats, overtrained(evidence.record))


def judge_confidence(nats: dict[float, float], too_long: bool = False) -> Finding:
    """The temperature at which the model predicts new text best, from the loss at several.

    A best temperature above 1 means that the model is too sure of itself (Guo et al. 2017,
    https://arxiv.org/abs/1706.04599). Fewer steps help where training was `too_long`.
    """
    best = min(nats, key=lambda temperature: nats[temperature])
    text = (
        f"new text costs {nats[1.0]:.4f} nats a token as it is, "
        f"{nats[best]:.4f} at the best temperature, {best:g}"
    )
    if best >= 1.2:
        fewer = "fewer train.steps, " if too_long else ""
        advice = (
            f"it is too sure of itself: {fewer}a higher optimizer.weight_decay, model.dropout=0.1"
        )
        return Finding("confidence", "look", text, advice)
    return Finding("confidence", "ok", text)


# ----------------------------------------------------------------- units, activations


@torch.no_grad()
def dead_units(evidence: Evidence) -> Finding | None:
    """Inputs of a matrix that are zero, or at the end of their range, for every token."""
    if not evidence.model.trainable:
        return None
    ids, _ = evidence.batch
    dead: dict[str, float] = {}  # by module: the share of its inputs that are always 0
    saturated: dict[str, float] = {}  # by module: the share of values at 1 or -1

    def observe(name: str, values: Tensor) -> None:
        units = values.detach().flatten(0, -2)  # (N, units)
        dead[name] = (units == 0).all(dim=0).float().mean().item()
        sizes = units.abs()
        is_bounded = bool(sizes.max() <= 1 + 1e-6)
        saturated[name] = (sizes > SATURATED).float().mean().item() if is_bounded else 0.0

    def observer(name: str):
        return lambda module, args: observe(name, args[0])

    handles = []
    for name, module in evidence.model.named_modules():
        if isinstance(module, nn.Linear):
            handles.append(module.register_forward_pre_hook(observer(name)))
    with _hooked(handles):
        evidence.model.eval()(ids)
    if not dead:
        return None
    deadest = max(dead, key=lambda name: dead[name])
    fullest = max(saturated, key=lambda name: saturated[name])
    text = f"{dead[deadest]:.1%} of the inputs of {deadest} are 0 for all {ids.numel():,} tokens"
    if dead[deadest] > 0.2:
        advice = "dead units learn nothing: lower optimizer.lr, or try model.activation=gelu"
        return Finding("dead units", "look", text, advice)
    if saturated[fullest] > 0.5:
        share = saturated[fullest]
        text = f"{share:.0%} of the inputs of {fullest} are at the end of their range, 1 or -1"
        advice = "saturated units pass no gradient: lower optimizer.lr, or start smaller"
        return Finding("dead units", "look", text, advice)
    return Finding("dead units", "ok", f"at most {text}")


def activations(evidence: Evidence) -> Finding | None:
    """How activations grow from layer to layer."""
    if not evidence.model.trainable:
        return None
    ids, _ = evidence.batch
    return judge_activations(activation_sizes(evidence.model, ids))


@torch.no_grad()
def activation_sizes(model: LanguageModel, ids: Tensor) -> list[float]:
    """Root mean square of what goes into the first layer, and of what each layer gives."""
    sizes: list[float] = []

    def note_size(values: Tensor) -> None:
        sizes.append(float(values.float().square().mean().sqrt()))

    def observe(
        module: nn.Module, args: tuple[Tensor, ...], out: Tensor | tuple[Tensor, ...]
    ) -> None:
        if not sizes:
            note_size(args[0])
        note_size(out[0] if isinstance(out, tuple) else out)

    layers = probe.layers_of(model).values()
    with _hooked([layer.register_forward_hook(observe) for layer in layers]):
        model.eval()(ids)
    return sizes


def judge_activations(sizes: list[float]) -> Finding | None:
    """The finding about root mean squares from the embedding to the last layer."""
    if not sizes:
        return None
    text = "root mean square " + " -> ".join(f"{size:.3g}" for size in sizes)
    growth = sizes[-1] / max(sizes[0], 1e-12)
    if not math.isfinite(growth) or growth > 1000 or max(sizes) > 1e4:
        advice = "activations explode: lower optimizer.lr, set model.qk_norm=true"
        return Finding("activations", "look", text, advice)
    if growth < 1e-2:
        advice = "activations vanish: raise optimizer.lr, fewer layers, or norms between them"
        return Finding("activations", "look", text, advice)
    return Finding("activations", "ok", text)


@contextlib.contextmanager
def _hooked(handles: list[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# ----------------------------------------------------------------- gradients, updates


def gradients(evidence: Evidence) -> Finding | None:
    """How large the gradient of each layer's matrices is beside that of the others."""
    model = evidence.model
    if not model.trainable:
        return None
    _backward(model, *evidence.batch)
    sizes = []
    for path in probe.layers_of(model):
        squares = 0.0
        n_values = 0
        for p in model.get_submodule(path).parameters():
            if p.ndim < 2:
                continue
            if p.grad is None:
                advice = "python -m lm.check model=... says which"
                return Finding("gradients", "failed", f"no gradient reaches {path}", advice)
            squares += float(p.grad.square().sum())
            n_values += p.grad.numel()
        sizes.append(math.sqrt(squares / max(1, n_values)))
    model.zero_grad(set_to_none=True)
    if len(sizes) < 2:
        return None
    text = "root mean square by layer " + " ".join(f"{size:.1e}" for size in sizes)
    if sizes[0] < 1e-3 * sizes[-1]:
        advice = "gradients vanish on the way down: norms, residual sums, fewer layers"
        return Finding("gradients", "look", text, advice)
    if sizes[0] > 1e3 * sizes[-1]:
        advice = "gradients explode on the way down: lower optimizer.lr, set train.clip=1"
        return Finding("gradients", "look", text, advice)
    return Finding("gradients", "ok", text)


def updates(evidence: Evidence) -> Finding | None:
    """How far one update at the highest rate moves each matrix, beside the matrix's own size."""
    if not evidence.model.trainable:
        return None
    run = evidence.run
    x, y = evidence.batch
    # A copy of the checkpoint's model, as the step changes it.
    model = run.cfg.model.build(run.tokenizer.vocab_size).to(x.device)
    optimizers = build_optimizers(run.cfg.optimizer, model)
    folder = run.checkpoint(evidence.which)
    checkpoint.load_weights(folder, model)
    checkpoint.load_optimizers(folder, optimizers)
    matrices = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    before = {name: p.detach().clone() for name, p in matrices.items()}
    _backward(model, x, y)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"]
        optimizer.step()
    ratios: dict[str, float] = {}
    for name, p in matrices.items():
        change = (p.detach() - before[name]).norm()
        ratios[name] = float(change / before[name].norm().clamp(min=1e-12))
    low = min(ratios, key=lambda name: ratios[name])
    high = max(ratios, key=lambda name: ratios[name])
    middle = statistics.median_high(ratios.values())
    text = (
        f"update / weight {middle:.1e} in the middle, {ratios[low]:.1e} ({low}) to "
        f"{ratios[high]:.1e} ({high}) at the highest rate"
    )
    if middle > 0.1:
        return Finding("updates", "look", text, "each step rewrites much: lower optimizer.lr")
    if middle < 1e-4:
        return Finding("updates", "look", text, "steps hardly move it: raise optimizer.lr")
    return Finding("updates", "ok", f"{text}; rule of thumb: 1e-3, small models stand more")


def _backward(model: LanguageModel, ids: Tensor, targets: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    metrics.next_token_loss(model(ids), targets).backward()
