"""Checks of the forward pass: shapes, what each position sees, steps, dtypes, checkpoints."""

import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from lm.check.bench import Bench, Broken, Skip
from lm.models.base import LanguageModel
from lm.record import checkpoint, state

CLOSE = 1e-4  # largest difference of logits that are the same but for rounding


def shapes(bench: Bench) -> str:
    """Ids (B, T) give finite float32 logits (B, T, V)."""
    model = bench.model()
    longest = bench.cfg.model.context_len
    for B, T in ((2, bench.T), (1, 1), (3, longest)):
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
    return f"(B, T) -> (B, T, {bench.vocab_size}) in float32, for 1 to {longest} positions"


def causality(bench: Bench) -> str:
    """No token changes the logits of an earlier position."""
    model = bench.model(perturbed=True)
    T = bench.T
    ids = bench.ids(2, T)
    other = bench.ids(2, T, seed=1)
    before = model(ids)
    worst = 0.0
    for t in range(1, T):
        changed = torch.cat([ids[:, :t], other[:, t:]], dim=1)
        change = (model(changed)[:, :t] - before[:, :t]).abs()
        by_position = change.amax(dim=(0, 2))  # (t,)
        largest = by_position.max().item()
        if not largest <= CLOSE:  # so NaN fails too
            raise Broken(
                f"other tokens from position {t} on change the logits at position "
                f"{int(by_position.argmax())} by {largest:.2g}: it sees the future"
            )
        worst = max(worst, largest)
    return f"later tokens change no earlier logit, at any of {T - 1} cuts (at most {worst:.1g})"


def memory(bench: Bench) -> str:
    """Every earlier token within `memory` matters to the last position, and none beyond does."""
    model = bench.model(perturbed=True)
    if not model.trainable:
        raise Skip("counts: what matters depends on what was seen")
    last = bench.T - 1
    ids = bench.ids(1, bench.T)
    before = model(ids)
    changes = []  # of the last position's logits, by the position of the changed token
    for t in range(bench.T):
        change = 0.0
        for shift in (1, 7):  # one other token could by chance do the same
            changed = ids.clone()
            changed[0, t] = (ids[0, t] + shift) % bench.vocab_size
            difference = (model(changed) - before)[0, -1].abs().max()
            change = max(change, difference.item())
        changes.append(change)
    reach = min(model.memory, last)
    dead = [t for t in range(last - reach, bench.T) if changes[t] == 0]
    if dead:
        raise Broken(
            f"position {dead[0]} never reaches position {last}, though memory={model.memory} says "
            f"that it does: {len(dead)} of {reach + 1} positions are lost"
        )
    far = [t for t in range(last - reach) if changes[t] > CLOSE]
    if far:
        raise Broken(
            f"position {far[0]} changes position {last}, which is further than "
            f"memory={model.memory}: raise self.memory"
        )
    return f"{reach + 1} of {bench.T} tokens may matter to position {last}: so it is"


def cache(bench: Bench) -> str:
    """`step` reads token by token, and rows of unequal length, to the same logits as `forward`."""
    model = bench.model(perturbed=True)
    T = bench.T
    half = max(1, T // 2)
    ids = bench.ids(2, T)
    with torch.inference_mode():
        whole = model(ids)  # (B, T, V)
        errors = []
        state = model.start(2)
        for t in range(T):
            logits = model.step(ids[:, t : t + 1], state)
            errors.append((logits - whole[:, t]).abs().max())
        ragged = model.step(ids, model.start(2), [T, half])
        ends = torch.stack([whole[0, T - 1], whole[1, half - 1]])
        errors.append((ragged - ends).abs().max())
        worst = torch.stack(errors).max()  # NaN if one of them is
    if not worst <= 10 * CLOSE:
        raise Broken(f"step() and forward() differ by {worst:.2g} in a logit")
    return f"token by token and all at once agree (at most {worst:.1g})"


def moves(bench: Bench) -> str:
    """Other dtypes and devices give about the same logits."""
    model = bench.model()
    ids = bench.ids(2, bench.T)
    before = model(ids)
    results = []
    if model.trainable:
        # On the CPU, as MPS knows no float64.
        double = copy.deepcopy(model).cpu().double()(ids.cpu()).to(before)
        difference = (double - before).abs().max()
        if not difference <= 10 * CLOSE:
            raise Broken(f"float64 differs by {difference:.2g} in a logit")
        with torch.autocast(bench.device.type, dtype=torch.bfloat16):
            half = model(ids)
        if not half.isfinite().all():
            raise Broken("bfloat16 gives a logit that is infinite or not a number")
        difference = (half - before).abs().max()
        results += ["float64", f"bfloat16 within {difference:.1g}"]
    if torch.cuda.is_available():
        other = torch.device("cpu" if bench.device.type == "cuda" else "cuda")
        moved = copy.deepcopy(model).to(other)(ids.to(other)).to(before.device)
        difference = (moved - before).abs().max()
        if not difference <= 100 * CLOSE:
            raise Broken(f"on {other} a logit differs by {difference:.2g}")
        results.append(f"same on {other}")
    else:
        results.append("no GPU here to move to")
    return ", ".join(results)


def saved(bench: Bench) -> str:
    """A checkpoint holds all that the logits depend on."""
    model = bench.model(perturbed=True)
    ids = bench.ids(2, bench.T)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), model, [], state.TrainState(), keep_last=1)
        loaded = bench.cfg.model.build(bench.vocab_size).to(bench.device).eval()
        checkpoint.load_weights(checkpoint.folder(Path(folder), 0), loaded)
    if not torch.equal(model(ids), loaded(ids)):
        lost = ", ".join(plain_tensors(model)) or "something it needs"
        raise Broken(
            f"the loaded model answers differently: {lost} is "
            "not saved: make it an nn.Parameter, or a buffer by self.register_buffer"
        )
    return "a loaded checkpoint gives the same logits, bit for bit"


def plain_tensors(model: LanguageModel) -> list[str]:
    """Names of the tensors that are mere attributes, so that no checkpoint holds them."""
    names = []
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor):
                names.append(f"{path}.{key}".lstrip("."))
    return names
