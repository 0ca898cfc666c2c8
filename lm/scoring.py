"""How well a model predicts ids: loss, perplexity, bits per byte, and which text it prefers.

result = scoring.evaluate(model, ids, tokenizer.token_lengths())     # {"bpb": 2.1, ...}
nats = scoring.token_nats(model, ids)                                # (1, n - 1)
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lm import metrics
from lm.data.batches import windows
from lm.models.base import LanguageModel
from lm.system import devices, failpoint, onednn, ranks, signals
from lm.tokenizers import Tokenizer

Pass = tuple[torch.Tensor, torch.Tensor]  # inputs and targets (B, T)
TOKENS = 1 << 12  # at most in one forward pass: what it holds then fits a CPU's cache
BLOCK = 1 << 10  # passes whose sums lie side by side
LOGITS = 1 << 26  # numbers at most in the logits of one pass: 256 MB


@torch.inference_mode()
def evaluate(
    model: LanguageModel,
    ids: np.ndarray,
    lengths: np.ndarray,
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Score every token of `ids` (n,) but the first; the training stream is left untouched.

    Windows of context_len tokens lie side by side, so the first tokens of a window are predicted
    from little context. `lengths` (V,) are the bytes of each token. Returns loss (nats a token),
    ppl, bpb (special tokens left out, as they have no bytes) and the counts.
    """
    was_training = model.training
    model.eval()
    device = model.device
    sum_device = device
    if device.type == "mps":  # which has no float64
        sum_device = torch.device("cpu")
    n_bytes_of = torch.from_numpy(lengths).to(sum_device)
    rows = _rows_per_pass(model)
    # Of each pass nats of all, nats of text, tokens, bytes; several processes share the passes.
    # In blocks: a small tensor that stays after each pass lies where the next pass would have had
    # its logits, and the memory of a long text grew by those of every pass.
    blocks: list[torch.Tensor] = []
    passes = windows(ids, rows, model.context_len)
    for n_before, (x, y) in enumerate(_share_of_rank(passes, ranks.rank(), ranks.n_proc())):
        signals.poll()
        failpoint.hit("eval.mid")
        x = x.to(device)
        y = y.to(device)
        with devices.autocast(device, dtype), onednn.products(model, x, dtype):
            nats = model.nats(x, y)  # (B, T)
        nats = nats.to(sum_device).double()
        y = y.to(sum_device)
        counted = y != metrics.IGNORE
        size = n_bytes_of[y.clamp(min=0)] * counted
        counts = (counted.sum(), size.sum())
        # Not nats[size > 0]: a GPU would be waited for, to know how many these are.
        if n_before % BLOCK == 0:
            blocks.append(torch.zeros(BLOCK, 4, dtype=torch.float64, device=sum_device))
        sums = torch.stack([nats.sum(), torch.where(size > 0, nats, 0.0).sum(), *counts])
        blocks[-1][n_before % BLOCK] = sums
    model.train(was_training)
    columns = ranks.gathered(torch.cat(blocks)).T.tolist()  # 4 of (passes,), zeros behind them
    # fsum rounds once, at the end: no order of the passes, nor number of processes, changes a bit.
    total, of_text, n_tokens, n_bytes = map(math.fsum, columns)
    loss = total / max(1, n_tokens)
    return {
        "loss": loss,
        "ppl": metrics.perplexity(loss),
        "bpb": metrics.bits_per_byte(of_text, int(n_bytes)),
        "tokens": int(n_tokens),
        "bytes": int(n_bytes),
    }


@torch.inference_mode()
def token_nats(
    model: LanguageModel, ids: np.ndarray, stride: int = 0, temperatures: Sequence[float] = (1.0,)
) -> np.ndarray:
    """-ln p of every token but the first, at each temperature (k, n - 1), in `windows`."""
    # At once, as the sums of `evaluate`: what stays after each pass takes the place of the next.
    found = np.empty((len(temperatures), max(0, len(ids) - 1)))
    n_before = 0
    only_plain = tuple(temperatures) == (1.0,)
    rows = _rows_per_pass(model)
    if not only_plain:  # the logits, these divided by a temperature, and their softmax
        rows = max(1, rows // 4)
    for x, y in windows(ids, rows, model.context_len, stride):
        signals.poll()
        x = x.to(model.device)
        y = y.to(model.device)
        scored = y.flatten() != metrics.IGNORE
        with onednn.products(model, x, torch.float32):
            if only_plain:
                nats = [model.nats(x, y).flatten()[scored]]
            else:
                logits = model(x)
                nats = [metrics.nats(logits / t, y).flatten()[scored] for t in temperatures]
        part = torch.stack(nats).cpu().double().numpy()
        found[:, n_before : n_before + part.shape[1]] = part
        n_before += part.shape[1]
    return found


def pair_accuracy(
    model: LanguageModel, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]
) -> float:
    """The share of pairs of texts whose first has the higher probability; ties count one half.

    Each text is scored as a whole document, between two end-of-document tokens.
    """
    texts = [text for pair in pairs for text in pair]
    nats = document_nats(model, [tokenizer.encode_to_numpy(text) for text in texts], tokenizer)
    first = nats[0::2]
    second = nats[1::2]
    return float((np.mean(first < second) + np.mean(first <= second)) / 2)


@torch.inference_mode()
def document_nats(
    model: LanguageModel, documents: Sequence[np.ndarray], tokenizer: Tokenizer
) -> np.ndarray:
    """-ln p of each document, ids (n,), and of its end, float64 (len(documents),).

    A document begins after an end-of-document token, and if it is longer than context_len, again
    at every further window, as in `evaluate`.
    """
    was_training = model.training
    model.eval()
    eot = tokenizer.eot_id
    T = model.context_len
    n_rows = _rows_per_pass(model)
    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))  # little to pad
    nats = np.zeros(len(documents))
    for at in range(0, len(order), n_rows):
        rows = order[at : at + n_rows]
        longest = len(documents[rows[-1]]) + 1
        x = torch.full((len(rows), longest), eot)
        y = torch.full((len(rows), longest), metrics.IGNORE)
        for row, i in enumerate(rows):
            ids = torch.from_numpy(documents[i].astype(np.int64))
            x[row, 1 : len(ids) + 1] = ids
            y[row, : len(ids)] = ids
            y[row, len(ids)] = eot
        for start in range(0, longest, T):
            signals.poll()
            inputs = x[:, start : start + T].to(model.device)
            targets = y[:, start : start + T].to(model.device)
            with onednn.products(model, inputs, torch.float32):
                scores = model.nats(inputs, targets)
            # On the CPU: not every device has float64.
            nats[rows] += scores.cpu().double().sum(dim=1).numpy()
    model.train(was_training)
    return nats


def _rows_per_pass(model: LanguageModel) -> int:
    """Windows in one forward pass."""
    tokens = TOKENS
    if not model.scores_alone:
        tokens = min(TOKENS, LOGITS // model.vocab_size)
    return max(1, tokens // model.context_len)


def _share_of_rank(passes: Iterator[Pass], rank: int, n_proc: int) -> Iterator[Pass]:
    """Every n_proc-th pass, beginning with number `rank`.

    All processes make as many passes, as through a sharded model they go together: where the last
    round has too few, a pass without targets takes the place.
    """
    for turn in itertools.zip_longest(*[passes] * n_proc):
        x, y = turn[0]
        yield turn[rank] or (x, torch.full_like(y, metrics.IGNORE))
