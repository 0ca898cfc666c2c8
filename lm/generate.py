"""Text out of a model: one token at a time for a batch of prompts, streamed as it is written.

    for piece in generate_text(model, tokenizer, "The king", max_tokens=100, seed=1):
        print(piece, end="", flush=True)

Beyond the context: a model with a `limited` context reads on until its window is full; then the
last context_len // 2 tokens become the new window, at positions 0 and up, and are read again once.
"""

import math
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lm.models.base import LanguageModel
from lm.models.kv_cache import KVCache, State
from lm.system import failpoint, seeds, signals
from lm.tokenizers.base import Tokenizer

DRAWS = 256  # made at a time, so that memory does not depend on max_tokens
COLDEST, HOTTEST = 1e-30, 1e30  # what float32 can divide by


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: list[list[int]],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_ids: tuple[int, ...] = (),
    compiled: bool = False,
) -> Iterator[list[int | None]]:
    """One list a step: each row's new token, None from the step on where it met a stop token.

    Rows end one by one; the iterator ends with the last or after `max_tokens` steps. Draw j of
    row i depends on (seed, i, j) alone, so no row changes with its neighbours but for rounding.
    `compiled` is for a transformer on a GPU, until the first row ends: see lm/models/slots.py.
    Raises ValueError for an empty prompt or a token the model does not know.
    """
    windows = [_window(model, prompt, row) for row, prompt in enumerate(prompts)]
    if not windows or max_tokens < 1:
        return
    was_training = model.training
    model.eval()
    try:
        rows = list(range(len(prompts)))  # those still being written
        state = model.start(len(rows))
        if compiled and isinstance(state, KVCache):
            state.compile()
        logits = _read(model, state, windows)  # (B, V)
        for i in range(max_tokens):
            signals.poll()
            failpoint.hit("sample.mid")
            if i % DRAWS == 0:
                block = _draws_of_block(seed, rows, i // DRAWS)  # (B, DRAWS)
                draws = block.t().contiguous().to(model.device)  # (DRAWS, B)
            ids = sample(logits, draws[i % DRAWS], temperature, top_k, top_p)  # (B,)
            tokens = ids.tolist()
            alive = [j for j, token in enumerate(tokens) if token not in stop_ids]
            if not alive:
                return
            step: list[int | None] = [None] * len(prompts)
            for j in alive:
                step[rows[j]] = tokens[j]
                if model.limited:  # any other model never reads them again
                    windows[rows[j]].append(tokens[j])
            yield step
            if i + 1 == max_tokens:
                return
            if len(alive) < len(rows):
                rows = [rows[j] for j in alive]
                state.keep(alive)
                ids = ids[alive]
                draws = draws[:, alive]
            if model.limited:
                _roll(model, state, windows, rows)
            logits = model.step(ids[:, None], state)  # (B, V)
    finally:
        model.train(was_training)


def generate_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: str = "",
    compiled: bool = False,
) -> Iterator[str]:
    """What follows the prompt, in pieces of whole characters; ends at the end-of-document token.

    It also ends before the text `stop`, of which no part is ever passed on. An empty prompt is
    the start of a document.
    """
    ids = tokenizer.encode_ordinary(prompt) or [tokenizer.eot_id]
    steps = generate(
        model, [ids], max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
        seed=seed, stop_ids=(tokenizer.eot_id,), compiled=compiled,
    )  # fmt: skip
    tokens = (token for (token,) in steps if token is not None)
    pieces = tokenizer.decode_stream(tokens)
    yield from _until(pieces, stop) if stop else pieces


def readable(prompt: str, tokenizer: Tokenizer) -> str:
    """The prompt, or "", the start of a document, where the tokenizer lacks one of its characters.

    For prompts that the user did not give; `generate_text` refuses one that cannot be read.
    """
    try:
        tokenizer.encode_ordinary(prompt)
    except ValueError:
        return ""
    return prompt


def sample(
    logits: Tensor, draws: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """Tokens (B,) from logits (B, V), one for each uniform draw in [0, 1).

    In this order: logits over temperature (0, and near it: the likeliest token), the `top_k`
    likeliest (0: all), the fewest likeliest that together have `top_p` (Holtzman et al. 2020).
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    tokens = None  # of each column; None: column i is token i
    if top_k:
        logits, tokens = logits.topk(min(top_k, logits.shape[-1]))  # (B, K), falling
    elif top_p < 1:
        logits, tokens = logits.sort(descending=True)
    # The highest logit is made 0, and stays it: any other could overflow.
    below = logits - logits.amax(dim=-1, keepdim=True)
    probs = (below / min(max(temperature, COLDEST), HOTTEST)).softmax(dim=-1)
    if top_p < 1:
        probs = probs.masked_fill(probs.cumsum(dim=-1) - probs >= top_p, 0.0)
    sums = probs.cumsum(dim=-1)  # (B, V or K)
    # The first column whose sum passes the draw. Just under 1, so that rounding keeps it below
    # the last sum and no token of probability 0 is ever chosen.
    targets = (draws * (1 - 1e-6))[:, None] * sums[:, -1:]
    chosen = torch.searchsorted(sums, targets, right=True)  # (B, 1)
    chosen = chosen.clamp(max=sums.shape[-1] - 1)  # behind the last where a sum is NaN
    if tokens is not None:
        chosen = tokens.gather(1, chosen)
    return chosen.squeeze(1)


def uniform_draws(seed: int, n_row: int, n: int) -> Tensor:
    """Draws (n_row, n) from [0, 1): number j of row i is a function of (seed, i, j)."""
    blocks = [_draws_of_block(seed, range(n_row), block) for block in range(math.ceil(n / DRAWS))]
    return torch.cat(blocks, dim=1)[:, :n]


def _draws_of_block(seed: int, rows: Sequence[int], block: int) -> Tensor:
    """The draws (B, DRAWS) of some rows for the positions DRAWS * block and on."""
    draws = []
    for row in rows:
        own_seed = seeds.seed(seed, f"sample{block or ''}", row)
        draws.append(torch.rand(DRAWS, generator=torch.Generator().manual_seed(own_seed)))
    return torch.stack(draws)


def _window(model: LanguageModel, prompt: list[int], row: int) -> list[int]:
    """The part of a checked prompt that the model will read."""
    if not prompt:
        raise ValueError(
            f"prompt {row} is empty: give at least one token, such as tokenizer.eot_id"
        )
    if not 0 <= min(prompt) <= max(prompt) < model.vocab_size:
        wrong = next(token for token in prompt if not 0 <= token < model.vocab_size)
        raise ValueError(
            f"prompt {row} has token {wrong}, but the model knows 0 to {model.vocab_size - 1}: "
            "use the tokenizer it was trained with"
        )
    if len(prompt) > model.context_len:
        warnings.warn(
            f"prompt {row} has {len(prompt)} tokens: the model reads the last {model.context_len}",
            stacklevel=3,
        )
    return list(prompt[-model.context_len :])


def _read(model: LanguageModel, state: State, texts: list[list[int]]) -> Tensor:
    """Logits (B, V) after texts of any lengths, read in one step."""
    lengths = [len(text) for text in texts]
    longest = max(lengths)
    padded = [text + [0] * (longest - len(text)) for text in texts]
    ids = torch.tensor(padded, device=model.device)  # (B, T)
    return model.step(ids, state, lengths if min(lengths) < longest else None)


def _roll(model: LanguageModel, state: State, windows: list[list[int]], rows: list[int]) -> None:
    """Where a window would overflow, start it again with its last half."""
    full = [j for j, row in enumerate(rows) if len(windows[row]) > model.context_len]
    if not full:
        return
    texts = []
    for j in full:
        window = windows[rows[j]][-(model.context_len // 2) :]
        windows[rows[j]] = window
        texts.append(window[:-1])  # the newest token is read by the next step
    again = model.start(len(full))
    if texts[0]:
        _read(model, again, texts)
    state.put(full, again)


def _until(pieces: Iterator[str], stop: str) -> Iterator[str]:
    """The text before `stop`; what could be its beginning waits until that is known."""
    waiting = ""
    for piece in pieces:
        waiting += piece
        if stop in waiting:
            waiting = waiting[: waiting.index(stop)]
            break
        n_ready = len(waiting) - _overlap(waiting, stop)
        if n_ready:
            yield waiting[:n_ready]
        waiting = waiting[n_ready:]
    if waiting:
        yield waiting


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of the text that could be the beginning of `stop`."""
    for n in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:n]):
            return n
    return 0
