"""What a model must do before its numbers mean anything: one function a promise.

    for name, verdict, detail in conformance.examine(bench):
        print(name, verdict, detail)

A check returns what it found, in one sentence; it raises Broken if the promise is broken, and
Skip where it cannot apply. An error out of the model itself is a broken promise too.
"""

import copy
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lm import config, metrics
from lm.config import Config
from lm.models.base import LanguageModel
from lm.record import checkpoint, state
from lm.system import seeds

CLOSE = 1e-4  # logits that are the same but for rounding
OVERFIT_STEPS = 300
TIMED_STEPS = 5


class Broken(Exception):
    """A promise that the model does not keep."""


class Skip(Exception):
    """A check that says nothing about this model."""


@dataclass
class Bench:
    """A model's settings, and how to make it anew for each check."""

    cfg: Config
    vocab_size: int
    device: torch.device
    train: object = None  # (n,) ids to count, for models that count

    def model(self, stirred: bool = False) -> LanguageModel:
        """The model as training would start with it; `stirred`: no parameter is zero or tiny."""
        torch.manual_seed(seeds.seed(self.cfg.seed, "init"))
        model = self.cfg.model.build(self.vocab_size)
        if not model.trainable and self.train is not None:
            model.fit(self.train)
        if stirred:
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(torch.randn_like(p) * 0.1)
        return model.to(self.device).eval()

    def ids(self, B: int, T: int, seed: int = 0) -> Tensor:
        random = torch.Generator().manual_seed(seeds.seed(seed, "check"))
        return torch.randint(0, self.vocab_size, (B, T), generator=random).to(self.device)

    @property
    def T(self) -> int:
        """A length long enough to see through, short enough to be quick."""
        return min(self.cfg.model.context_len, 24)


def examine(bench: Bench) -> Iterator[tuple[str, str, str]]:
    """Name, verdict (ok, failed, skipped) and detail of every check, as each is done."""
    for name, check in CHECKS.items():
        try:
            yield name, "ok", check(bench)
        except Skip as reason:
            yield name, "skipped", str(reason)
        except Broken as broken:
            yield name, "failed", str(broken)
        except Exception as error:  # whatever somebody's own model raises is a finding
            yield name, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"


def shapes(bench: Bench) -> str:
    model = bench.model()
    for B, T in ((2, bench.T), (1, 1), (3, bench.cfg.model.context_len)):
        logits = model(bench.ids(B, T))
        if logits.shape != (B, T, bench.vocab_size):
            raise Broken(
                f"ids ({B}, {T}) give logits {tuple(logits.shape)}, "
                f"not (B, T, V) = ({B}, {T}, {bench.vocab_size})"
            )
        if logits.dtype != torch.float32:
            raise Broken(f"the logits are {logits.dtype}: return them as float32, with .float()")
        if not logits.isfinite().all():
            raise Broken("a logit is infinite or not a number")
    return f"(B, T) -> (B, T, {bench.vocab_size}) in float32, for 1 to {T} positions"


def causality(bench: Bench) -> str:
    model, T = bench.model(stirred=True), bench.T
    ids, other = bench.ids(2, T), bench.ids(2, T, seed=1)
    before, worst = model(ids), 0.0
    for t in range(1, T):
        changed = torch.cat([ids[:, :t], other[:, t:]], dim=1)
        here = (model(changed)[:, :t] - before[:, :t]).abs().amax(dim=(0, 2))  # (t,)
        worst = max(worst, here.max().item())
        if not here.max() <= CLOSE:  # nor is a NaN
            raise Broken(
                f"other tokens from position {t} on change the logits at position "
                f"{int(here.argmax())} by {here.max():.2g}: it sees the future"
            )
    return f"later tokens change no earlier logit, at any of {T - 1} cuts (at most {worst:.1g})"


def memory(bench: Bench) -> str:
    """Every earlier token within `memory` matters to the last position, and none beyond does."""
    model, T = bench.model(stirred=True), bench.T
    if not model.trainable:
        raise Skip("counts: what matters depends on what was seen")
    ids = bench.ids(1, T)
    moved = []
    for t in range(T):
        change = 0.0
        for shift in (1, 7):  # one other token could by chance do the same
            changed = ids.clone()
            changed[0, t] = (ids[0, t] + shift) % bench.vocab_size
            change = max(change, (model(changed) - model(ids))[0, -1].abs().max().item())
        moved.append(change)
    reach = min(model.memory, T - 1)
    if dead := [t for t in range(T - 1 - reach, T) if moved[t] == 0]:
        raise Broken(
            f"position {dead[0]} never reaches position {T - 1}, though memory={model.memory} says "
            f"that it does: {len(dead)} of {reach + 1} positions are lost"
        )
    if far := [t for t in range(T - 1 - reach) if moved[t] > CLOSE]:
        raise Broken(
            f"position {far[0]} changes position {T - 1}, which is further than "
            f"memory={model.memory}: raise self.memory"
        )
    return f"{reach + 1} of {T} tokens may matter to position {T - 1}: so it is"


def first_loss(bench: Bench) -> str:
    model = bench.model()
    if not model.trainable:
        raise Skip("counts: nothing to start from")
    ids = bench.ids(8, bench.T + 1)
    loss = metrics.next_token_loss(model(ids[:, :-1]), ids[:, 1:]).item()
    uniform = math.log(bench.vocab_size)
    if not abs(loss - uniform) < 0.25:
        raise Broken(
            f"the loss before training is {loss:.3f}, a blind guess has ln V = {uniform:.3f}: "
            "start the last layer with smaller weights"
        )
    return f"{loss:.3f} nats before training, a blind guess has ln V = {uniform:.3f}"


def overfit(bench: Bench) -> str:
    """One small batch can be learned as far as the model's memory allows."""
    model = bench.model()
    if not model.trainable:
        raise Skip("counts: no gradient steps")
    ids = bench.ids(4, bench.T + 1)
    x, y = ids[:, :-1], ids[:, 1:]
    floor = _floor(ids, model.memory)
    lr = 3e-3 * model.cfg.lr_scale
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.0)
    goal = floor + 0.1 * (math.log(bench.vocab_size) - floor)
    for step in range(1, OVERFIT_STEPS + 1):
        loss = metrics.next_token_loss(model(x), y)
        if loss.item() < goal:
            return f"{loss.item():.3f} nats after {step} steps on one batch (possible: {floor:.3f})"
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if loss.item() < floor + 0.5 * (math.log(bench.vocab_size) - floor):
        return f"slowly: {loss.item():.3f} nats after {step} steps on one batch"
    raise Broken(
        f"{loss.item():.3f} nats after {step} steps on one batch of {y.numel()} tokens, where "
        f"{floor:.3f} is possible: it does not learn"
    )


def _floor(ids: Tensor, memory: int) -> float:
    """The loss of a table of what follows each `memory + 1` tokens of these texts, in nats."""
    pairs = Counter()
    for row in ids.tolist():
        for t in range(len(row) - 1):
            pairs[tuple(row[max(0, t - memory) : t + 1]), row[t + 1]] += 1
    contexts = Counter()
    for (context, _), n in pairs.items():
        contexts[context] += n
    total = sum(pairs.values())
    return max(0.0, -sum(n * math.log(n / contexts[c]) for (c, _), n in pairs.items()) / total)


def cache(bench: Bench) -> str:
    model, T = bench.model(stirred=True), bench.T
    ids = bench.ids(2, T)
    with torch.inference_mode():
        whole = model(ids)
        state, off = model.start(2), []
        for t in range(T):
            off.append((model.step(ids[:, t : t + 1], state) - whole[:, t]).abs().max())
        state = model.start(2)
        ragged = model.step(ids, state, [T, max(1, T // 2)])
        ends = torch.stack([whole[0, T - 1], whole[1, max(1, T // 2) - 1]])
        worst = torch.stack([*off, (ragged - ends).abs().max()]).max()  # NaN if one of them is
    if not worst <= 10 * CLOSE:
        raise Broken(f"step() and forward() differ by {worst:.2g} in a logit")
    return f"token by token and all at once agree (at most {worst:.1g})"


def moves(bench: Bench) -> str:
    model, ids = bench.model(), bench.ids(2, bench.T)
    before = model(ids)
    parts = []
    if model.trainable:
        # On the CPU, as MPS knows no float64.
        double = copy.deepcopy(model).cpu().double()(ids.cpu()).to(before)
        if not (off := (double - before).abs().max()) <= 10 * CLOSE:
            raise Broken(f"float64 differs by {off:.2g} in a logit")
        with torch.autocast(bench.device.type, dtype=torch.bfloat16):
            half = model(ids)
        if not half.isfinite().all():
            raise Broken("bfloat16 gives a logit that is infinite or not a number")
        parts += ["float64", f"bfloat16 within {(half - before).abs().max():.1g}"]
    if torch.cuda.is_available():
        other = torch.device("cpu" if bench.device.type == "cuda" else "cuda")
        there = copy.deepcopy(model).to(other)(ids.to(other)).to(before.device)
        if not (off := (there - before).abs().max()) <= 100 * CLOSE:
            raise Broken(f"on {other} a logit differs by {off:.2g}")
        parts.append(f"same on {other}")
    else:
        parts.append("no GPU here to move to")
    return ", ".join(parts)


def saved(bench: Bench) -> str:
    model, ids = bench.model(stirred=True), bench.ids(2, bench.T)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), model, [], state.TrainState(), keep_last=1)
        again = bench.cfg.model.build(bench.vocab_size).to(bench.device).eval()
        checkpoint.load_weights(checkpoint.folder(Path(folder), 0), again)
    if not torch.equal(model(ids), again(ids)):
        lost = [f"{path}.{key}".lstrip(".") for path, module in model.named_modules()
                for key, value in vars(module).items() if isinstance(value, Tensor)]  # fmt: skip
        raise Broken(
            f"the loaded model answers differently: {', '.join(lost) or 'something it needs'} is "
            "not saved: make it an nn.Parameter, or a buffer by self.register_buffer"
        )
    return "a loaded checkpoint gives the same logits, bit for bit"


def gradients(bench: Bench) -> str:
    model = bench.model(stirred=True)
    if not model.trainable:
        raise Skip("counts: no gradients")
    ids = bench.ids(4, bench.T + 1)
    metrics.next_token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
    named = dict(model.named_parameters())
    if dead := [n for n, p in named.items() if p.grad is None or not p.grad.any()]:
        raise Broken(f"no gradient reaches {', '.join(dead)}")
    if wild := [n for n, p in named.items() if not p.grad.isfinite().all()]:
        raise Broken(f"the gradient of {', '.join(wild)} is infinite or not a number")
    return f"all {len(named)} parameters get one"


def groups(bench: Bench) -> str:
    model = bench.model()
    if not model.trainable:
        raise Skip("counts: no optimizer")
    texts = []
    for name, cls in config.options("optimizer").items():
        own = bench.cfg.optimizer.name == name
        found = (bench.cfg.optimizer if own else cls()).build(model)  # refuses strays and doubles
        n = [sum(p.numel() for g in o.param_groups for p in g["params"]) for o in found]
        texts.append(f"{name} {' + '.join(f'{i:,}' for i in n)}")
    return f"every parameter once: {', '.join(texts)}"


def speed(bench: Bench) -> str:
    """Beside a transformer of about as many parameters."""
    model = bench.model()
    if not model.trainable:
        raise Skip("counts: no training steps")
    own, own_memory = _pace(bench, model)
    rival_bench = replace(bench, cfg=replace(bench.cfg, model=_rival(bench, model.n_params())))
    rival = rival_bench.model()
    pace, kept = _pace(rival_bench, rival)
    return (
        f"{own:,.0f} tokens/s in training, {own_memory / 1e6:.1f} MB kept for the backward pass; "
        f"a transformer of {rival.n_params():,} parameters: {pace:,.0f} and {kept / 1e6:.1f} MB"
    )


def _rival(bench: Bench, n_params: int) -> config.TransformerConfig:
    """The transformer of 4 layers with the nearest number of parameters."""
    T, found = bench.cfg.model.context_len, []
    for width in (*range(16, 256, 16), *range(256, 2049, 64)):
        size = bench.vocab_size * width + 12 * 4 * width * width
        found.append((abs(size - n_params), width))
    return config.TransformerConfig(context_len=T, n_embd=min(found)[1])


def _pace(bench: Bench, model: LanguageModel) -> tuple[float, int]:
    """Training tokens a second, and bytes kept from the forward for the backward pass."""
    ids = bench.ids(8, bench.cfg.model.context_len + 1)
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        metrics.next_token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
    times = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        metrics.next_token_loss(model(ids[:, :-1]), ids[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
        if bench.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return ids[:, 1:].numel() / min(times), sum(kept.values())


CHECKS: dict[str, Callable[[Bench], str]] = {
    "shapes": shapes,
    "causality": causality,
    "memory": memory,
    "first loss": first_loss,
    "one batch": overfit,
    "cache": cache,
    "dtype, device": moves,
    "save, load": saved,
    "gradients": gradients,
    "optimizers": groups,
    "speed": speed,
}
