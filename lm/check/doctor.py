"""What a training run did, found by rules: each finding is a number, its meaning, and what to try.

for finding in doctor.examine(Path("outputs/runs/...")):
    print(finding.name, finding.verdict, finding.detail, finding.advice)
"""

import json
import logging
import math
import re
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lm import data, metrics, pipeline
from lm.config import ModelConfig
from lm.evaluate import token_nats
from lm.lens import probe
from lm.models.base import LanguageModel
from lm.record import checkpoint
from lm.record.run import Run
from lm.report import floors, records
from lm.system import files

log = logging.getLogger(__name__)
MAX_TEXT = 5_000_000  # characters of training text that are searched for copies
MAX_EPOCHS = 20  # after which more steps on the same text teach little
TEMPERATURES = [0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 2.0]  # that are tried
MAX_TOKENS = 10_000  # of each split that are scored for the gap: it is then known to 0.04 nats


@dataclass
class Finding:
    name: str
    verdict: str  # ok, note, look (at it) or failed (the run cannot be trusted)
    detail: str
    advice: str = ""


def examine(path: Path, which: str = "last", model: LanguageModel | None = None) -> list[Finding]:
    """All findings about a run that has a checkpoint; `model` is what that holds, if it is at hand.
    Raises ValueError where there is none."""
    run = Run.open(str(path))
    record = records.read(path)
    model = run.model(which) if model is None else model.eval()
    if record.settings.get("schedule.name") == "range":
        detail = (
            "a range test: its rate rises until training fails, so its curve alone says something"
        )
        return [Finding("schedule", "note", detail)]
    points, losses = record.curve("val/bpb", "step"), record.curve("train/loss", "step")
    found = [*_curve(points, losses), *_clipping(record)]
    if (folder := record.tokens) is None:
        here = "its tokens are no longer in the cache"
        return [*found, Finding("data", "note", f"{here}: the rest was not looked at")]
    data.check(folder, run.tokenizer)
    train, val = data.load(folder, "train"), data.load(folder, "val")
    found += _against_counts(record, run.tokenizer, len(train))
    n = min(len(train), len(val), MAX_TOKENS)
    if n > 1 and model.trainable:  # one token predicts none
        new = _spent(model, val[:n], TEMPERATURES)
        found += _gap(_spent(model, train[:n], [1.0])[1.0], new[1.0])
        found += _confidence(new)
    found += _epochs(record, len(train))
    if model.trainable:
        some = next(data.windows(train, min(8, run.cfg.train.batch_size), model.context_len))
        x, y = (t.to(model.device) for t in some)
        found += _units(model, x)
        found += _sizes(model, x)
        found += _gradients(model, x, y)
        found += _updates(run, which, x, y)
    found += _copies(run)
    for finding in found:
        finding.advice = _possible(finding.advice, run.cfg.model)
    return found


def _possible(advice: str, model: ModelConfig) -> str:
    """The advice without settings that this model does not have, or has so already."""

    def keep(found: re.Match) -> str:
        now = getattr(model, found["name"], None)
        done = str(now).lower() == found["value"] or (found["name"] == "dropout" and now)
        return "" if now is None or done else found[0]

    setting = r"(,? (or )?(try |set )?)?model\.(?P<name>\w+)(=(?P<value>[\w.]+))?"
    return re.sub(setting, keep, advice)


def after_run(out: Path, model: LanguageModel | None = None) -> None:
    """Write doctor.json into a finished run, and say in the log what deserves a look."""
    try:
        found = examine(out, model=model)
    except Exception as error:  # the run is good whatever goes wrong in looking at it
        log.warning(f"the doctor could not look at {out}: {' '.join(str(error).split())}")
        return
    rows = [asdict(finding) for finding in found]
    files.atomic_write(out / "doctor.json", json.dumps(rows, indent=1) + "\n")
    for finding in found:
        if finding.verdict in ("look", "failed"):
            log.info(f"doctor     {finding.name}: {finding.detail}; {finding.advice}")


Curve = list[tuple[float, float]]  # (step, value)


def _curve(points: Curve, losses: Curve) -> Iterator[Finding]:
    """Where the evaluations (step, val/bpb) stand at the end: falling, level, or past the best;
    `losses` are those of training."""
    if len(points) < 3:
        return
    first, (before, earlier), (end, last) = points[0][1], *points[-2:]
    step, best = min(points, key=lambda point: point[1])
    top, peak = max(points[1:], key=lambda point: point[1])
    if peak > 1.1 * first and (top < end or best > 0.98 * first):
        text = f"val/bpb jumped to {peak:.4f} at step {top:,.0f}, from {first:.4f} before training"
        text += f"; it ended at {last:.4f}"
        advice = "the steps are too long: lower optimizer.lr, or more schedule.warmup"
        yield Finding("curve", "look", text, advice)
    elif last > 1.01 * best and _rose(losses, step):
        text = f"val/bpb was best at step {step:,.0f} ({best:.4f}) and rose to {last:.4f}"
        text += ", and with it the training loss"
        advice = "training came apart: lower optimizer.lr, or more schedule.warmup"
        yield Finding("curve", "look", text, advice)
    elif last > 1.01 * best:
        text = f"val/bpb was best at step {step:,.0f} ({best:.4f}) and rose to {last:.4f}"
        advice = f"checkpoint=best holds that step; try train.steps={step:.0f}, more text, "
        advice += "model.dropout=0.1"
        yield Finding("curve", "look", text, advice)
    elif last > 0.98 * first:
        text = f"val/bpb is {last:.4f} at the end and was {first:.4f} before training"
        advice = "it learned next to nothing: raise optimizer.lr or train.steps"
        yield Finding("curve", "look", text, advice)
    elif last < 0.99 * earlier:
        text = (
            f"val/bpb still fell by {1 - last / earlier:.1%} from step {before:,.0f} to {end:,.0f}"
        )
        yield Finding("curve", "note", text, "not done learning: raise train.steps")
    else:
        yield Finding("curve", "ok", f"val/bpb is level at the end, {last:.4f}")


def _rose(losses: Curve, step: float) -> bool:
    """Whether the training loss ended above what it was at a step: nothing was learned by heart."""
    before = [loss for at, loss in losses if at <= step][-5:]
    after = [loss for at, loss in losses if at > step][-5:]
    return bool(after) and (not before or statistics.median(after) > statistics.median(before))


def _clipping(record: records.Record) -> Iterator[Finding]:
    """The sizes of the gradient over the run, and how often it was cut."""
    losses = record.curve("train/loss", "step")
    if len(losses) < 4:
        return
    sizes = [y for _, y in record.curve("optim/grad_norm", "step")]
    clip = record.settings.get("train.clip") or math.inf
    clipped = sum(norm > clip for norm in sizes) / max(1, len(sizes))
    peak, middle = max(sizes, default=0.0), sorted(sizes)[len(sizes) // 2] if sizes else 0.0
    text = f"gradient norm {middle:.3g} in the middle, {peak:.3g} at most, {clipped:.0%} clipped"
    if clipped > 0.5 and middle > 5 * clip:
        advice = "gradients this large come with too high a rate: lower optimizer.lr"
        yield Finding("clipping", "look", text, advice)
    elif clipped > 0.5:
        advice = "most gradients were shortened to train.clip: usual in a short run, else raise it"
        yield Finding("clipping", "note", text, advice)
    elif middle and peak > 30 * middle:
        advice = "a spike: try more schedule.warmup or a lower optimizer.lr"
        yield Finding("clipping", "look", text, advice)
    else:
        yield Finding("clipping", "ok", text)


def _against_counts(record: records.Record, tokenizer: Any, n_train: int) -> Iterator[Finding]:
    """Bits per byte beside what counting alone reaches on the same text."""
    score = record.score
    lines = floors.ladder(record)
    if score is None or not lines:
        return
    uniform = math.log2(tokenizer.vocab_size)
    text = f"{score:.4f} bits a byte at best; " + ", ".join(
        f"{k} {v:.4f}" for k, v in lines.items()
    )
    beaten = [name for name, value in lines.items() if score < value]
    exact = floors.exact(record)
    for name, value in exact.items():
        text += f", {name} {value:.4f}"
        if score < value - 0.02:
            advice = "below the entropy of its source: the text to score leaks into training"
            yield Finding("counts", "failed", text, advice)
            return
    if record.settings.get("model.name") in ("bigram_counts", "ngram"):
        yield Finding("counts", "ok", text)
    elif not beaten:
        advice = f"worse than unigram counts (a blind guess: {uniform:.1f} bits a token): check "
        yield Finding("counts", "look", text, advice + "optimizer.lr and train.steps first")
    elif len(beaten) < len(lines):
        missed = next(name for name in lines if name not in beaten)
        advice = f"has not learned what {missed} hold: "
        points = record.curve("val/bpb", "step")
        step, best = min(points, key=lambda point: point[1], default=(0.0, math.inf))
        rose = points and points[-1][1] > 1.01 * best
        worn = _tokens(record) > MAX_EPOCHS * n_train
        if worn or (rose and not _rose(record.curve("train/loss", "step"), step)):
            advice += "more text or model.dropout=0.1, as more steps only fit this text closer"
        else:
            advice += "raise train.steps, then try optimizer.lr and a larger model"
        yield Finding("counts", "note", text, advice)
    else:
        yield Finding("counts", "ok", text)


def _spent(model: LanguageModel, ids: np.ndarray, temperatures: list[float]) -> dict[float, float]:
    """Nats a token at each temperature."""
    nats = token_nats(model, ids, 0, temperatures).mean(axis=1)
    return dict(zip(temperatures, nats.tolist(), strict=True))


def _gap(seen: float, new: float) -> Iterator[Finding]:
    """Nats a token of as much text of both splits, scored alike."""
    text = f"{seen:.4f} nats a token on text it trained on, {new:.4f} on new text"
    if new - seen > 0.25 * new:
        advice = "it learns the text by heart: more text, model.dropout=0.1, fewer train.steps"
        yield Finding("train, val", "look", text, advice)
    else:
        yield Finding("train, val", "ok", text)


def _confidence(spent: dict[float, float]) -> Iterator[Finding]:
    """The temperature at which the model would have spent the least on new text: above 1 it is too
    sure of itself (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""
    best = min(spent, key=spent.get)
    text = f"new text costs {spent[1.0]:.4f} nats a token as it is, "
    text += f"{spent[best]:.4f} at the best temperature, {best:g}"
    if best >= 1.2:
        advice = "it is too sure of itself: fewer train.steps, a higher optimizer.weight_decay"
        yield Finding("confidence", "look", text, advice + ", model.dropout=0.1")
    else:
        yield Finding("confidence", "ok", text)


def _tokens(record: records.Record) -> float:
    """How many the run was trained on; 0 if that is not known."""
    curve = record.curve("val/bpb")
    return record.summary.get("tokens") or max((x for x, _ in curve), default=0)


def _epochs(record: records.Record, n_train: int) -> Iterator[Finding]:
    tokens = _tokens(record)
    if not tokens:
        return
    epochs, n_params = tokens / n_train, record.summary.get("n_params", 0)
    text = f"{epochs:.2f} times the {n_train:,} training tokens"
    text += f", {tokens / n_params:.2g} tokens a parameter" if n_params else ""
    if epochs > MAX_EPOCHS:
        advice = "after so many repeats more steps teach little: more text or a smaller model"
        yield Finding("epochs", "look", text, advice)
    elif epochs < 1:
        advice = "part of the text was never seen: train.steps can be raised without repeating"
        yield Finding("epochs", "note", text, advice)
    else:
        yield Finding("epochs", "ok", text)


# ----------------------------------------------------------------- units, sizes, gradients


@torch.no_grad()
def _units(model: LanguageModel, x: Tensor) -> Iterator[Finding]:
    """Inputs of a matrix that are zero, or at the end of their range, for every token."""
    dead: dict[str, float] = {}
    stuck: dict[str, float] = {}

    def look(name: str, seen: Tensor) -> None:
        flat = seen.detach().flatten(0, -2)  # (N, units)
        dead[name] = (flat == 0).all(dim=0).float().mean().item()
        bounded = flat.abs().max() <= 1 + 1e-6
        stuck[name] = ((flat.abs() > 0.99).float().mean().item()) if bounded else 0.0

    handles = [
        module.register_forward_pre_hook(lambda m, args, name=name: look(name, args[0]))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    model.eval()(x)
    for handle in handles:
        handle.remove()
    if not dead:
        return
    worst, full = max(dead, key=dead.get), max(stuck, key=stuck.get)
    text = f"{dead[worst]:.1%} of the inputs of {worst} are 0 for all {x.numel():,} tokens"
    if dead[worst] > 0.2:
        advice = "dead units learn nothing: lower optimizer.lr, or try model.activation=gelu"
        yield Finding("dead units", "look", text, advice)
    elif stuck[full] > 0.5:
        text = f"{stuck[full]:.0%} of the inputs of {full} are at the end of their range, 1 or -1"
        advice = "saturated units pass no gradient: lower optimizer.lr, or start smaller"
        yield Finding("dead units", "look", text, advice)
    else:
        yield Finding("dead units", "ok", f"at most {text}")


def _sizes(model: LanguageModel, x: Tensor) -> Iterator[Finding]:
    """How the numbers grow from layer to layer: what goes into the first, and what each gives."""
    sizes: list[float] = []

    def look(module: nn.Module, args: tuple, out: Any) -> None:
        out = out[0] if isinstance(out, tuple) else out
        for seen in [out] if sizes else [args[0], out]:
            sizes.append(float(seen.float().square().mean().sqrt()))

    handles = [layer.register_forward_hook(look) for layer in probe.layers_of(model).values()]
    with torch.no_grad():
        model.eval()(x)
    for handle in handles:
        handle.remove()
    if not sizes:
        return
    text = "root mean square " + " -> ".join(f"{size:.3g}" for size in sizes)
    growth = sizes[-1] / max(sizes[0], 1e-12)
    if not math.isfinite(growth) or growth > 1000 or max(sizes) > 1e4:
        advice = "activations explode: lower optimizer.lr, set model.qk_norm=true"
        yield Finding("activations", "look", text, advice)
    elif growth < 1e-2:
        advice = "activations vanish: raise optimizer.lr, fewer layers, or norms between them"
        yield Finding("activations", "look", text, advice)
    else:
        yield Finding("activations", "ok", text)


def _backward(model: LanguageModel, x: Tensor, y: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    metrics.next_token_loss(model(x), y).backward()


def _gradients(model: LanguageModel, x: Tensor, y: Tensor) -> Iterator[Finding]:
    """How large the gradient of each layer's matrices is beside the others'."""

    _backward(model, x, y)
    sizes = []
    for path in probe.layers_of(model):
        grads = [p.grad for p in model.get_submodule(path).parameters() if p.ndim > 1]
        if any(g is None for g in grads):
            text = f"no gradient reaches {path}"
            yield Finding("gradients", "failed", text, "python -m lm.check model=... says which")
            return
        total = sum(float(g.square().sum()) for g in grads)
        sizes.append(math.sqrt(total / max(1, sum(g.numel() for g in grads))))
    model.zero_grad(set_to_none=True)
    if len(sizes) < 2:
        return
    text = "root mean square by layer " + " ".join(f"{size:.1e}" for size in sizes)
    if sizes[0] < 1e-3 * sizes[-1]:
        advice = "gradients vanish on the way down: norms, residual sums, fewer layers"
        yield Finding("gradients", "look", text, advice)
    elif sizes[0] > 1e3 * sizes[-1]:
        advice = "gradients explode on the way down: lower optimizer.lr, set train.clip=1"
        yield Finding("gradients", "look", text, advice)
    else:
        yield Finding("gradients", "ok", text)


def _updates(run: Run, which: str, x: Tensor, y: Tensor) -> Iterator[Finding]:
    """How far one update at the full rate moves each matrix, beside its own size."""
    model = run.cfg.model.build(run.tokenizer.vocab_size).to(x.device)
    optimizers = run.cfg.optimizer.build(model)
    folder = run.checkpoint(which)
    checkpoint.load_weights(folder, model)
    checkpoint.load_optimizers(folder, optimizers)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.ndim > 1}
    _backward(model, x, y)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"]
        optimizer.step()
    ratios = {
        name: float((p.detach() - before[name]).norm() / before[name].norm().clamp(min=1e-12))
        for name, p in model.named_parameters()
        if name in before
    }
    low, high = min(ratios, key=ratios.get), max(ratios, key=ratios.get)
    middle = sorted(ratios.values())[len(ratios) // 2]
    text = f"update / weight {middle:.1e} in the middle, {ratios[low]:.1e} ({low}) to "
    text += f"{ratios[high]:.1e} ({high}) at the highest rate"
    if middle > 0.1:
        yield Finding("updates", "look", text, "each step rewrites much: lower optimizer.lr")
    elif middle < 1e-4:
        yield Finding("updates", "look", text, "steps hardly move it: raise optimizer.lr")
    else:
        yield Finding("updates", "ok", text + "; rule of thumb: 1e-3, small models stand more")


# ------------------------------------------------------------------------- learning by heart


def _copies(run: Run) -> Iterator[Finding]:
    """The longest piece of a sample that stands in the training text, letter by letter."""
    rows = [r for r in records.lines(run.path / "samples.jsonl") if {"step", "text"} <= r.keys()]
    if not rows:
        return
    last = [row["text"] for row in rows if row["step"] == rows[-1]["step"]]
    if not any(last):
        advice = "train.prompts: give a beginning as it stands in the text"
        yield Finding("copies", "note", "the samples are empty: they ended at once", advice)
        return
    try:
        with pipeline.quietly():
            corpus = pipeline.prepare_corpus(run.cfg.corpus)
    except (ValueError, OSError):
        return  # the text lies elsewhere
    text = "\n".join(_beginning(pipeline.read(corpus, "train"), MAX_TEXT))
    new = "\n".join(_beginning(pipeline.read(corpus, "val"), max(map(len, last), default=0)))
    copied = max((longest_copy(sample, text) for sample in last), key=len, default="")
    usual = longest_copy(new[: max(map(len, last), default=0)], text)
    shown = copied if len(copied) <= 50 else copied[:47] + "..."
    detail = f"longest copy in the samples: {len(copied)} characters, {shown!r}; "
    detail += f"new text of that length has {len(usual)}"
    if len(copied) > 50 and len(copied) > 2 * len(usual):
        advice = "it recites: stop earlier, more text, model.dropout=0.1 or a smaller model"
        yield Finding("copies", "look", detail, advice)
    else:
        yield Finding("copies", "ok", detail)


def _beginning(documents: Iterator[str], n: int) -> Iterator[str]:
    """Documents of n characters in all."""
    for document in documents:
        yield document[:n]
        n -= len(document)
        if n <= 0:
            return


def longest_copy(sample: str, text: str) -> str:
    """The longest piece of `sample` that `text` contains."""
    best = ""
    for start in range(len(sample)):
        while start + len(best) < len(sample) and sample[start : start + len(best) + 1] in text:
            best = sample[start : start + len(best) + 1]
    return best
