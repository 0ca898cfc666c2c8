"""Open a run directory: its configuration, its tokenizer, its model at a checkpoint.

run = Run.open("latest")
model = run.model("best")
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch

from lm import config, tokenizers
from lm.models.base import LanguageModel
from lm.record import checkpoint, wandb_artifact
from lm.record.find import REMOTE, find_run
from lm.record.schemas import Summary, read_part
from lm.system import devices, files, memory, store
from lm.system.errors import DamagedError, OutOfMemoryError
from lm.system.text import shell_word


@dataclass
class Run:
    """A run directory that has been trained at least in part."""

    path: Path
    cfg: config.Config
    tokenizer: tokenizers.Tokenizer

    @classmethod
    def open(cls, name: str) -> "Run":
        """The run in the directory `name`, the newest for "latest", or a model kept in W&B.

        Raises ValueError if it is none.
        """
        is_remote = name.startswith(REMOTE)
        path = wandb_artifact.fetch(name) if is_remote else find_run(name)
        files.no_links(path)
        cfg = config.load(path / config.RESOLVED)
        if not (path / "tokenizer.json").exists():
            raise ValueError(
                f"{path} has no tokenizer.json: it stopped before training began; "
                f"python -m lm.train {shell_word(f'resume={path}')} goes on"
            )
        return cls(path, cfg, tokenizers.load(path / "tokenizer.json"))

    def checkpoint(self, which: str | int) -> Path:
        """The folder of a checkpoint: best, last or a step; verified.

        Raises ValueError if there is no such checkpoint, DamagedError if it is damaged.
        """
        steps = checkpoint.steps(self.path)
        if not steps:
            raise ValueError(
                f"{self.path} has no checkpoint: python -m lm.train "
                f"{shell_word(f'resume={self.path}')} makes one"
            )
        folder = checkpoint.folder(self.path, self._step(str(which), steps))
        store.verify(folder)
        return folder

    def _step(self, which: str, steps: list[int]) -> int:
        if which == "last":
            return steps[-1]
        if which == "best":
            best = self._best_step(steps[-1])
            return best if best in steps else steps[-1]
        if not which.isdecimal() or int(which) not in steps:
            choices = ", ".join(map(str, steps))
            raise ValueError(
                f"checkpoint={which} is not in {self.path}: choose best, last or one of {choices}"
            )
        return int(which)

    def _best_step(self, last: int) -> int:
        """The step of the lowest val/bpb, as the summary says, or else the last checkpoint."""
        state = checkpoint.read_record(checkpoint.folder(self.path, last)).state
        with contextlib.suppress(DamagedError):
            summary = read_part(self.path, Summary)
            # The last checkpoint may be that of a stop, saved before its step was scored.
            if summary and summary.step == last:
                return summary.best_step
        return state.best_step

    def model(self, which: str | int = "best") -> LanguageModel:
        """The model with the weights of a checkpoint, in evaluation mode, on the CPU."""
        folder = self.checkpoint(which)
        checkpoint.check_fits(folder, self._build)
        room = memory.room(torch.device("cpu"))
        try:
            model = self._build()
            checkpoint.load_weights(folder, model)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            size = memory.gigabytes((folder / checkpoint.WEIGHTS).stat().st_size)
            raise OutOfMemoryError(
                f"out of memory: the weights in {folder} take {size}, and there are "
                f"{memory.gigabytes(room)}"
            ) from None
        return model.eval()

    def _build(self) -> LanguageModel:
        return self.cfg.model.build(self.tokenizer.vocab_size)
