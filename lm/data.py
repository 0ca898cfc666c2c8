"""Packed tokens on disk, and the batch number `step` as a pure function of (seed, step).

data.pack(folder, documents, tokenizer, ...)
batches = data.Batches(ids, batch_size=32, context_len=128, seed=0)
x, y = batches[step]                       # (B, T) ids, and the ids that follow each of them
DataLoader(batches, batch_size=None, sampler=range(100), num_workers=2)     # the same batches
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lm.metrics import IGNORE
from lm.system import failpoint, files, seeds
from lm.system.errors import DamagedError

RECORD = "tokens.json"
COUNTS = {"n_tokens": int, "n_bytes": int}
SPLITS = {"train": COUNTS, "val": COUNTS}
FORM = {"dtype": str, "vocab_size": int, "tokenizer": str, "splits": SPLITS}  # of the record
RESIDENT = 1 << 30  # bytes of a GPU's memory that the training tokens may take
CHUNK = 1 << 22  # ids held in memory while packing or checking


def pack(folder: Path, split: str, documents: Iterable[str], tokenizer: Any, ends: bool) -> dict:
    """Write the ids of all documents to folder/SPLIT.bin; return their counts.

    The end-of-document token stands between documents. With `ends` it also stands before the
    first and after the last, as the split then holds whole documents; a part cut out of a text
    has neither.
    """
    number = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    eot = np.array([tokenizer.eot_id], dtype=number)
    n_tokens = n_bytes = n_documents = 0
    lengths = tokenizer.token_lengths()
    with open(folder / f"{split}.bin", "wb") as file:
        pending: list[np.ndarray] = [eot] if ends else []
        size = len(pending)

        def flush() -> None:
            nonlocal n_tokens, n_bytes, size
            ids = np.concatenate(pending) if pending else eot[:0]
            n_tokens, n_bytes, size = n_tokens + len(ids), n_bytes + int(lengths[ids].sum()), 0
            # Not tofile, whose error does not say that the disk is full.
            file.write(ids.astype(ids.dtype.newbyteorder("<"), copy=False).data)
            pending.clear()

        for ids in tokenizer.encode_documents(documents):
            if n_documents and not ends:
                pending.append(eot)
            pending.append(ids.astype(number))
            if ends:
                pending.append(eot)
            n_documents += 1
            size += len(ids) + 1
            if size > CHUNK:
                flush()
            failpoint.hit("cache.mid")
        flush()
    return {"n_tokens": n_tokens, "n_bytes": n_bytes, "n_documents": n_documents}


def write_record(folder: Path, tokenizer: Any, corpus: str, splits: dict[str, dict]) -> None:
    """Write what the token files mean: number type, vocabulary, origin, counts."""
    record = {
        "dtype": "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32",
        "vocab_size": tokenizer.vocab_size,
        "tokenizer": tokenizer.fingerprint,
        "corpus": corpus,
        "splits": splits,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def load(folder: Path, split: str) -> np.ndarray:
    """The ids of a split, memory-mapped (n,), uint16 or uint32; DamagedError if it has others."""
    record = files.read_json(folder / RECORD, FORM | {"splits": {split: COUNTS}})
    path, n = folder / f"{split}.bin", record["splits"][split]["n_tokens"]
    if record["dtype"] not in ("uint16", "uint32") or n < 0:
        raise DamagedError(f"{path} holds {n} ids of {record['dtype'][:20]!a}, says {RECORD}")
    number = np.dtype(record["dtype"]).newbyteorder("<")
    if path.stat().st_size != n * number.itemsize:
        raise DamagedError(f"{path} has {path.stat().st_size} bytes, not {n} ids")
    if n == 0:  # what cannot be mapped
        return np.zeros(0, dtype=number)
    return np.memmap(path, dtype=number, mode="r", shape=(n,))


def check(folder: Path, tokenizer: Any) -> None:
    """Raise DamagedError unless these are tokens of this tokenizer, every id below vocab_size."""
    record = files.read_json(folder / RECORD, FORM)
    for name, mine in (("tokenizer", tokenizer.fingerprint), ("vocab_size", tokenizer.vocab_size)):
        if record[name] != mine:
            raise DamagedError(f"{folder} holds tokens of another {name}")
    for split in SPLITS:
        ids = load(folder, split)
        for start in range(0, len(ids), CHUNK):
            if (top := int(ids[start : start + CHUNK].max())) >= tokenizer.vocab_size:
                raise DamagedError(
                    f"{folder / split}.bin holds the id {top}, and the vocabulary ends at "
                    f"{tokenizer.vocab_size - 1}"
                )


class Batches(torch.utils.data.Dataset):
    """The training batches of a token array; `batches[step]` needs no state and no history.

    The array is cut into windows of context_len tokens. Each epoch visits every window once, in
    an order of its own and from a starting point of its own, so that the cuts move between epochs.
    `len` is the number of windows an epoch has, divided by the batch size and rounded up.
    Of several processes, that of rank r gets the rows r, r + n_proc, ... of the same batch.
    """

    def __init__(
        self,
        ids: np.ndarray,
        batch_size: int,
        context_len: int,
        seed: int,
        rank: int = 0,
        n_proc: int = 1,
    ) -> None:
        if len(ids) <= context_len:
            raise ValueError(
                f"the training text has {len(ids)} tokens, and one window needs "
                f"{context_len + 1}: lower model.context_len or give more text"
            )
        self.ids, self.batch_size, self.context_len, self.seed = ids, batch_size, context_len, seed
        self.rank, self.n_proc = rank, n_proc
        self.tokens = batch_size * context_len  # a batch has, over all processes
        self.n_windows = max(1, (len(ids) - context_len) // context_len)
        self.n_starts = min(context_len, len(ids) - self.n_windows * context_len)
        self.where = torch.device("cpu")
        self.there: torch.Tensor | None = None  # all ids, in the memory of `where`
        self._epoch: tuple[int, np.ndarray] | None = None  # the last order made, to save remaking

    def __len__(self) -> int:
        return -(-self.n_windows // self.batch_size)

    def to(self, where: torch.device, resident: int = RESIDENT) -> "Batches":
        """Hand out batches in the memory of a GPU. Ids that take up to `resident` bytes there move
        as a whole, and of a batch only the starts of its windows are sent."""
        self.where = where
        if where.type != "cpu" and 4 * len(self.ids) <= resident:
            self.there = torch.from_numpy(self.ids.astype(np.int32)).to(where)
        return self

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of a step, both (B, T) int64; any step >= 0, in any order."""
        starts = self.starts(step)[:, None]
        if self.there is not None:
            span = torch.arange(self.context_len + 1, device=self.where)
            block = self.there[self._send(starts) + span].long()  # (B, T + 1)
        else:
            windows = starts + np.arange(self.context_len + 1)
            block = self._send(self.ids[windows].astype(np.int64))
        return block[:, :-1], block[:, 1:]

    def _send(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.where.type != "cuda":
            return tensor.to(self.where)
        return tensor.pin_memory().to(self.where, non_blocking=True)  # it need not wait for the GPU

    def starts(self, step: int) -> np.ndarray:
        """Where this process's windows of a step begin, (B,)."""
        if step < 0:
            raise IndexError(f"step {step} is negative")
        rows = np.arange(self.rank, self.batch_size, self.n_proc)
        visits = step * self.batch_size + rows
        return np.array([self._order(v // self.n_windows)[v % self.n_windows] for v in visits])

    def _order(self, epoch: int) -> np.ndarray:
        if self._epoch is None or self._epoch[0] != epoch:
            random = np.random.default_rng(seeds.seed(self.seed, "batches", epoch))
            start = random.integers(self.n_starts)
            order = random.permutation(self.n_windows) * self.context_len + start
            self._epoch = (int(epoch), order)
        return self._epoch[1]


def windows(
    ids: np.ndarray, batch_size: int, context_len: int, stride: int = 0
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Every target of `ids` exactly once, in fixed windows: the evaluation pass.

    They lie side by side, or begin every `stride` tokens: then each scores its last `stride`
    targets alone, which have more to look back at, for context_len / stride times the work.
    Yields inputs and targets (B, T); a target that another window scores, or behind the end of
    the text, is IGNORE.
    """
    n, stride = len(ids) - 1, stride or context_len
    rest = max(0, n - context_len)  # targets behind the first window
    starts = np.arange(0, rest + stride, stride) if rest else np.zeros(1, dtype=np.int64)
    for low in range(0, len(starts), batch_size):
        places = starts[low : low + batch_size, None] + np.arange(context_len)  # (B, T)
        x = torch.from_numpy(ids[np.minimum(places, n)].astype(np.int64))
        y = torch.from_numpy(ids[np.minimum(places + 1, n)].astype(np.int64))
        old = (np.arange(context_len) < context_len - stride) & (places[:, :1] > 0)
        y[torch.from_numpy(old | (places >= n))] = IGNORE
        yield x, y
