"""What a model keeps of the tokens it has read, so that the next one costs one step, not all.

state = model.start(batch_size=2)
logits = model.step(prompts, state, lengths=[5, 3])     # (B, V): after each row's last token
logits = model.step(next_ids, state)                    # reads one more token a row
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lm.models.slots import Slots


class State:
    """Tensors with one row per text, and how many tokens of each text they stand for."""

    def __init__(self, batch_size: int, tensors: list[Tensor]):
        self.lengths = [0] * batch_size  # plain numbers: reading them never waits for a device
        self.tensors = tensors  # (B, ...) each

    def keep(self, rows: list[int]) -> None:
        """Forget all texts but these."""
        self.lengths = [self.lengths[row] for row in rows]
        self.tensors = [tensor[rows] for tensor in self.tensors]

    def put(self, rows: list[int], other: "State") -> None:
        """Replace what is known of these texts by the rows of another state of the model."""
        for row, length in zip(rows, other.lengths, strict=True):
            self.lengths[row] = length
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine[rows] = theirs

    def count(self, n_new: list[int]) -> None:
        """Count so many tokens of each text as read."""
        self.lengths = [old + new for old, new in zip(self.lengths, n_new, strict=True)]


class KVCache(State):
    """Keys and values of every layer, each row filled from slot 0: slot = position in its text.

    Rows may differ in length. What lies behind a row's end is padding or older rubbish: it is
    masked, and overwritten by the row's next tokens.
    """

    def __init__(
        self,
        batch_size: int,
        n_layer: int,
        n_head: int,
        context_len: int,
        head_dim: int,
        like: Tensor,
    ):
        super().__init__(batch_size, [])
        # One tensor, keys then values: a step takes the views of all layers in a few calls.
        self.kv = like.new_zeros(2, n_layer, batch_size, n_head, context_len, head_dim)
        self.context_len = context_len
        # Prepared at the first single token: (ids, positions, cache) -> logits.
        self.decoder: Callable[[Tensor, Tensor, KVCache], Tensor] | None = None
        self.compiled = False  # whether single tokens take the compiled step, made for one size

    def compile(self) -> None:
        Slots.keep_address(self.kv)
        self.compiled = True

    def keep(self, rows: list[int]) -> None:
        super().keep(rows)
        self.kv = self.kv[:, :, rows]
        self.compiled = False

    def put(self, rows: list[int], other: State) -> None:
        assert isinstance(other, KVCache), "a transformer's state replaces a transformer's"
        super().put(rows, other)
        self.kv[:, :, rows] = other.kv

    def open(self, n_new: int) -> Tensor:
        """Make ready for `n_new` tokens a row; their positions, (T,) or where rows differ (B, T).

        Sets what attention needs: `causal` where plain causal order does (an empty cache), else
        `mask`, (B or 1, 1, T, S), True where a query may look; None where it may look at all.
        Raises ValueError where the tokens do not fit.
        """
        first = max(self.lengths)
        self.n_new = n_new
        self.end = first + n_new  # S: the slots in use after this step
        if self.end > self.context_len:
            raise ValueError(
                f"{first} tokens read and {n_new} more are above the model's "
                f"context_len={self.context_len}: start again with the last ones"
            )
        device = self.kv.device
        self.causal = first == 0
        self.even = min(self.lengths) == first  # all rows are equally long
        if self.even:
            positions = torch.arange(first, self.end, device=device)  # (T,)
        else:
            starts = torch.tensor(self.lengths, device=device)
            positions = starts[:, None] + torch.arange(n_new, device=device)  # (B, T)
            self.rows = torch.arange(len(self.lengths), device=device)[:, None]
            self.slots = positions
        self.mask = None
        if not self.causal and (n_new > 1 or not self.even):
            slots = torch.arange(self.end, device=device)
            self.mask = (slots <= positions[..., None]).view(-1, 1, n_new, self.end)
        return positions

    def add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, H, T, D) of one layer; return all it holds so far, (B, H, S, D)."""
        keys = self.kv[0, layer]
        values = self.kv[1, layer]
        if self.even:
            first = self.end - self.n_new
            keys[:, :, first : self.end] = k
            values[:, :, first : self.end] = v
        else:
            # Indices that are not neighbours put their shape (B, T) first.
            keys[self.rows, :, self.slots] = k.transpose(1, 2)
            values[self.rows, :, self.slots] = v.transpose(1, 2)
        return keys[:, :, : self.end], values[:, :, : self.end]

    def layers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """After open(1): each layer's keys (B H, D, S) and values (B H, S, D), whose last slot
        `write` fills. Sets `bias`, (B H or 1, 1, S), which hides from the scores what is masked."""
        keys, values = self.kv.flatten(2, 3)[:, :, :, : self.end]
        self.bias = keys.new_zeros(1, 1, 1)
        if self.mask is not None:
            n_head = self.kv.shape[3]
            hidden = ~self.mask[:, 0].repeat_interleave(n_head, dim=0)  # (B H, 1, S)
            self.bias = self.bias.masked_fill(hidden, -torch.inf)
        self.last_slots = self.kv[..., self.end - 1, :].unbind(1)  # (2, B, H, D) for each layer
        return zip(keys.mT.unbind(0), values.unbind(0), strict=True)

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store k and v (B, H, D) of one layer, for one token a row."""
        if self.even:
            slot = self.last_slots[layer]
            slot[0].copy_(k)
            slot[1].copy_(v)
        else:
            self.add(layer, k[:, :, None], v[:, :, None])

    def close(self, lengths: list[int] | None) -> None:
        """Count the new tokens as read: all, or `lengths` of each row (the rest is padding)."""
        self.count(lengths or [self.n_new] * len(self.lengths))
