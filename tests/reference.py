"""Slow and obvious versions of what lm computes fast: the judges of its tests.

assert torch.allclose(fast(x), reference.slow(x))
"""

import itertools
import math
import re
from collections import Counter, defaultdict
from functools import cache

import torch
from torch import Tensor

from lm.generate import sample


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of (B, H, T, D), one query at a time."""
    y = torch.zeros_like(q)
    B, H, T, D = q.shape
    for b in range(B):
        for h in range(H):
            for t in range(T):
                scores = torch.stack([q[b, h, t] @ k[b, h, s] for s in range(t + 1)]) / D**0.5
                for s, weight in enumerate(scores.softmax(0)):
                    y[b, h, t] += weight * v[b, h, s]
    return y


def rope(x: Tensor, base: float) -> Tensor:
    """RoPE of (T, D): the pair (x[2i], x[2i + 1]) at t, as a complex number, times e^(i t w)."""
    T, D = x.shape
    y = torch.zeros_like(x)
    for t in range(T):
        for i in range(D // 2):
            angle = t * base ** (-2 * i / D)
            z = complex(x[t, 2 * i], x[t, 2 * i + 1]) * complex(math.cos(angle), math.sin(angle))
            y[t, 2 * i], y[t, 2 * i + 1] = z.real, z.imag
    return y


def bigram_probs(ids: list[int], vocab_size: int, add_k: float, last: int) -> list[float]:
    pairs = Counter(itertools.pairwise(ids))
    total = sum(n for (a, _), n in pairs.items() if a == last)
    return [(pairs[last, b] + add_k) / (total + add_k * vocab_size) for b in range(vocab_size)]


class KneserNey:
    """Interpolated modified Kneser-Ney by dictionaries, as written in Chen and Goodman 1999."""

    def __init__(self, ids: list[int], order: int, vocab_size: int):
        self.order, self.vocab_size = order, vocab_size
        text = [None, *ids]  # what stands before the first token
        self.counts: dict[int, Counter] = {}
        for n in range(1, order + 1):
            places = range(1, len(text) - n + 1)
            if n == order:
                self.counts[n] = Counter(tuple(text[i : i + n]) for i in places)
            else:  # the different tokens before the sequence
                before = defaultdict(set)
                for i in places:
                    before[tuple(text[i : i + n])].add(text[i - 1])
                self.counts[n] = Counter({gram: len(tokens) for gram, tokens in before.items()})
        self.discounts = {n: self._discounts(list(c.values())) for n, c in self.counts.items()}

    def _discounts(self, counts: list[int]) -> dict[int, float]:
        n = {c: counts.count(c) for c in (1, 2, 3, 4)}
        found = {0: 0.0}
        for c in (1, 2, 3):
            d = -1.0
            if n[1] and n[c]:
                d = c - (c + 1) * n[1] / (n[1] + 2 * n[2]) * n[c + 1] / n[c]
            found[c] = d if 0 < d < c else c / 2
        return found

    def prob(self, history: tuple, token: int, n: int | None = None) -> float:
        n = self.order if n is None else n
        if n == 0:
            return 1 / self.vocab_size
        if len(history) < n - 1:  # a context cut off by the window's start
            return self.prob(history, token, n - 1)
        context = history[len(history) - (n - 1) :]
        followers = {g: c for g, c in self.counts[n].items() if g[:-1] == context}
        shorter = self.prob(history, token, n - 1)
        if not followers:
            return shorter
        discount, total = self.discounts[n], sum(followers.values())
        count = followers.get((*context, token), 0)
        left = sum(discount[min(c, 3)] for c in followers.values())
        return (count - discount[min(count, 3)] + left * shorter) / total


@torch.inference_mode()
def generate(model, prompt: list[int], draws: Tensor, **how) -> list[int]:
    """One row without any cache: the whole window through `forward` for each token."""
    model.eval()
    window, text = prompt[-model.context_len :], []
    for draw in draws:
        logits = model(torch.tensor([window]))[:, -1]
        token = sample(logits, draw[None], **how).item()
        text.append(token)
        window = [*window, token]
        if model.limited and len(window) > model.context_len:
            window = window[-(model.context_len // 2) :]
    return text


def newton_schulz(m: Tensor, n_round: int = 5) -> Tensor:
    """Muon's orthogonalization, singular value by singular value."""
    u, s, vt = torch.linalg.svd(m.double(), full_matrices=False)  # s is (..., R)
    s = s / s.norm(dim=-1, keepdim=True)
    for _ in range(n_round):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s[..., None, :]) @ vt


def tokens(sentence):
    """The words and marks of a sentence of the grammar corpus."""
    return re.findall(r"[a-z]+|[,.()\[\]]", sentence)


def derivations(rules, words):
    """How many derivations of S give these words, and the sum of their probabilities."""
    lexicon = {
        symbol: {word: p for p, word in choices}
        for symbol, choices in rules.items()
        if not any(set(right.split()) & set(rules) or " " in right for _, right in choices)
    }

    @cache
    def spans(symbol, start):
        """{end: (derivations, probability)} of the words that `symbol` can cover from `start`."""
        if symbol not in rules:
            return {start + 1: (1, 1.0)} if words[start : start + 1] == [symbol] else {}
        if symbol in lexicon:
            found = lexicon[symbol].get(words[start]) if start < len(words) else None
            return {start + 1: (1, found)} if found else {}
        total = {}
        for p, right in rules[symbol]:
            ends = {start: (1, p)}
            for part in right.split():
                longer = {}
                for middle, (n, q) in ends.items():
                    for end, (n2, q2) in spans(part, middle).items():
                        before = longer.get(end, (0, 0.0))
                        longer[end] = (before[0] + n * n2, before[1] + q * q2)
                ends = longer
            for end, (n, q) in ends.items():
                before = total.get(end, (0, 0.0))
                total[end] = (before[0] + n, before[1] + q)
        return total

    return spans("S", 0).get(len(words), (0, 0.0))
