"""Is it worth training many small models as one? 64 stacked with torch.func against one by one.

    python experiments/benchmarks/stacking/bench.py [--tiny]

A step is forward, backward and AdamW of a transformer of 131,000 parameters (lm's default shape, at
width 48) on a batch of its own; attention is written out, as its kernels have no batching rule.
First both ways must give the same losses. Alternating, medians. Writes its block of README.md.
"""

import copy
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional as F

HERE = Path(__file__).parent
TINY = "--tiny" in sys.argv
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
N_MODELS, B, T, V, C, H, N_LAYER = (2, 2, 8, 65, 16, 2, 1) if TINY else (64, 16, 64, 65, 48, 4, 4)
TURNS = 1 if TINY else 5
RATE, DECAY, BETA1, BETA2 = 1e-3, 0.1, 0.9, 0.99


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C, bias=False)
        self.out = nn.Linear(C, C, bias=False)
        self.up = nn.Linear(C, 4 * C, bias=False)
        self.down = nn.Linear(4 * C, C, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n_rows = len(x)
        normed = F.layer_norm(x, (C,))
        q, k, v = (
            part.view(n_rows, T, H, C // H).transpose(1, 2)  # (B, H, T, D)
            for part in self.qkv(normed).chunk(3, dim=-1)
        )
        scores = (q @ k.mT) * (C // H) ** -0.5 + mask  # (B, H, T, T)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n_rows, T, C)
        x = x + self.out(mixed)
        return x + self.down(F.relu(self.up(F.layer_norm(x, (C,)))).square())


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, C)
        self.positions = nn.Embedding(T, C)
        self.blocks = nn.ModuleList(Block() for _ in range(N_LAYER))
        self.head = nn.Linear(C, V, bias=False)
        self.register_buffer("mask", torch.full((T, T), -torch.inf).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.positions.weight  # (B, T, C)
        for block in self.blocks:
            x = block(x, self.mask)
        return self.head(F.layer_norm(x, (C,)))  # (B, T, V)


def adamw(weights: dict, grads: dict, state: dict, step: int) -> None:
    """AdamW in place, on tensors of one model or of all of them stacked: it is elementwise."""
    for name, weight in weights.items():
        mean, square = state[name]
        mean.lerp_(grads[name], 1 - BETA1)
        square.lerp_(grads[name].square(), 1 - BETA2)
        size = (square / (1 - BETA2**step)).sqrt_().add_(1e-8)
        weight.mul_(1 - RATE * DECAY)
        weight.addcdiv_(mean, size, value=-RATE / (1 - BETA1**step))


def one_by_one(models: list[Model], batches: Tensor) -> Callable[[int], Tensor]:
    """A step of each model after the other; the losses come back, (N_MODELS,)."""
    states = [
        {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in model.named_parameters()}
        for model in models
    ]

    def step(number: int) -> Tensor:
        losses = []
        for model, state, ids in zip(models, states, batches, strict=True):
            loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            with torch.no_grad():
                weights = {name: p.data for name, p in model.named_parameters()}
                grads = {name: p.grad for name, p in model.named_parameters()}
                adamw(weights, grads, state, number)
            model.zero_grad(set_to_none=True)
            losses.append(loss.detach())
        return torch.stack(losses)

    return step


def stacked(models: list[Model], batches: Tensor) -> Callable[[int], Tensor]:
    """The same as one step over weights with a first dimension of models."""
    weights, buffers = stack_module_state(models)
    weights = {name: w.detach() for name, w in weights.items()}
    state = {name: (torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
    plain = copy.deepcopy(models[0]).to("meta")

    def loss_of(own: dict, fixed: dict, ids: Tensor) -> Tensor:
        logits = functional_call(plain, (own, fixed), (ids[:, :-1],))
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    gradients = vmap(grad_and_value(loss_of))

    def step(number: int) -> Tensor:
        grads, losses = gradients(weights, buffers, batches)
        adamw(weights, grads, state, number)
        return losses

    return step


def compiled(step: Callable[[int], Tensor]) -> Callable[[int], Tensor]:
    """The step through torch.compile; its number counts as a constant of AdamW's bias."""
    return torch.compile(step, dynamic=True)


def main() -> None:
    torch.manual_seed(0)
    models = [Model().to(DEVICE) for _ in range(N_MODELS)]
    n = sum(p.numel() for p in models[0].parameters())
    batches = torch.randint(V, (N_MODELS, B, T + 1), device=DEVICE)
    ways = {
        "one by one": one_by_one(copy.deepcopy(models), batches),
        "stacked": stacked(copy.deepcopy(models), batches),
    }
    if DEVICE.type == "cuda":
        ways["stacked, compiled"] = compiled(stacked(copy.deepcopy(models), batches))
    for number in (1, 2, 3):
        losses = [step(number) for step in ways.values()]
        for other in losses[1:]:
            torch.testing.assert_close(other, losses[0], rtol=1e-3, atol=1e-3)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS):
        for name, step in ways.items():
            start = time.perf_counter()
            for i in range(1 if TINY else 3):
                step(4 + 3 * turn + i)
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            times[name].append((time.perf_counter() - start) / (1 if TINY else 3))
    write(n, {name: statistics.median(column) for name, column in times.items()})


def write(n_parameters: int, seconds: dict[str, float]) -> None:
    """Print the table; the README's block for this kind of device holds it too."""
    mark = "gpu" if DEVICE.type == "cuda" else "results"
    card = torch.cuda.get_device_name() if DEVICE.type == "cuda" else platform.machine()
    lines = [
        f"{card}, PyTorch {torch.__version__.split('+')[0]}: {N_MODELS} models of "
        f"{n_parameters:,} parameters, {B} windows of {T} tokens each.",
        "",
        "| way | ms for a step of all | models' steps a second | x one by one |",
        "|---|--:|--:|--:|",
    ]
    for name, each in seconds.items():
        ratio = seconds["one by one"] / each
        lines.append(f"| {name} | {each * 1e3:.1f} | {N_MODELS / each:.0f} | {ratio:.2f} |")
    block = f"<!-- {mark} -->\n" + "\n".join(lines) + f"\n<!-- /{mark} -->"
    print(block)
    if TINY:
        return
    page = (HERE / "README.md").read_text(encoding="utf-8")
    page = re.sub(rf"<!-- {mark} -->.*<!-- /{mark} -->", lambda _: block, page, flags=re.S)
    (HERE / "README.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
