"""What models of counted tables share: loading tables of any length, and sums over sorted keys.

class Bigrams(CountModel):
    tables = {"pairs": torch.int64, "counts": torch.int64}
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lm.models.base import LanguageModel

MAX_COUNT = 2**40  # above it a table is no count of a text


class CountModel(LanguageModel):
    """A model of counted tables: buffers whose length depends on the text.

    A subclass lists them in `tables` as {name: dtype}, checks them in `check` and computes what
    follows from them in `prepare`.
    """

    trainable = False
    limited = False
    scores_alone = True
    tables: Mapping[str, torch.dtype]

    def set_tables(self, tables: Mapping[str, np.ndarray | Tensor]) -> None:
        """Take over counted tables, on the device where the model is."""
        old = next(self.buffers(), None)  # none yet as the model is made
        for name, dtype in self.tables.items():
            table = torch.as_tensor(tables[name]).to(dtype)
            if old is not None:
                table = table.to(old.device)
            self.register_buffer(name, table)
        if not any(table.is_meta for table in self.buffers()):  # of which there are no numbers
            self.prepare()

    def check(self) -> None:
        """Raise ValueError unless `fit` could have made the tables: they may be a stranger's."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Compute from the tables what `forward` needs."""

    def refuse(self, what: str) -> ValueError:
        return ValueError(
            f"the saved tables of model {self.cfg.name} are damaged: {what}; train the model again"
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: object
    ) -> None:
        """Make room for tables of the saved length, load them, check them (PyTorch calls this)."""
        for name, dtype in self.tables.items():
            saved = state_dict.get(prefix + name)
            if saved is None:
                continue
            if saved.ndim != 1 or saved.dtype != dtype:
                raise self.refuse(f"{name} is {tuple(saved.shape)} {saved.dtype}, not (n,) {dtype}")
            setattr(self, name, self.get_buffer(name).new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
        if all(prefix + name in state_dict for name in self.tables):
            self.check()
            self.prepare()


def sort(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys (N,) in order, and the places where they stood; equal ones stay in their order.

    PyTorch's is a radix sort: half the time of numpy's.
    """
    values, places = torch.from_numpy(keys).sort(stable=True)
    return values.numpy(), places.numpy()


def is_first(keys: np.ndarray) -> np.ndarray:
    """Of sorted keys (N,) True at the first of each value, as (N,)."""
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    return first


def slices(start: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """The indices start[i], start[i] + 1, ... of length[i] each, one after another.

    For start and length (N,): the i of each index and the index, (M,) with M the sum of lengths.
    """
    row = torch.repeat_interleave(length)
    n_before = length.cumsum(0) - length
    index = torch.arange(len(row), device=row.device) + (start - n_before)[row]
    return row, index


def find(keys: Tensor, wanted: Tensor) -> Tensor:
    """The row of each wanted number in the sorted keys (n,), -1 where it is not there."""
    if len(keys) == 0:
        return torch.full_like(wanted, -1)
    row = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return torch.where(keys[row] == wanted, row, -1)
