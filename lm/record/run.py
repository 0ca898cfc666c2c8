"""Open a run directory: its configuration, its tokenizer, its model at a checkpoint.

run = Run.open("latest")
model = run.model("best")                 # ids (B, T) in, logits (B, T, V) out
run.loss("Import a module.")              # nats a token
run.sample("The import", max_tokens=40)   # the prompt and what follows it
run.metrics()                             # the points of its curves
"""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lm import config, scoring, tokenizers
from lm.generate import generate_text, readable
from lm.models.base import LanguageModel
from lm.record import checkpoint, wandb_artifact
from lm.record.find import REMOTE, find_run
from lm.record.schemas import Summary, read_part, read_rows
from lm.settings.commands import SampleConfig
from lm.system import devices, files, memory, store
from lm.system.errors import DamagedError, OutOfMemoryError
from lm.system.text import printable_line, shell_word


@dataclass(repr=False)
class Run:
    """A run directory that has been trained at least in part."""

    path: Path
    cfg: config.Config
    tokenizer: tokenizers.Tokenizer
    _loaded: dict[Path, LanguageModel] = field(default_factory=dict, compare=False)  # used last

    def __repr__(self) -> str:
        text = f"{self.path}: {self.cfg.model.name} on {self.cfg.corpus.name}"
        with contextlib.suppress(ValueError, OSError):  # it says no more of a damaged run
            summary = read_part(self.path, Summary)
            if summary:
                text += f", best val/bpb {summary.best_val_bpb:.4f} at step {summary.best_step}"
        return f"<Run {printable_line(text)}>"

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
        if not steps and (self.path / Summary.file).exists():  # a resume= would find it complete
            raise ValueError(
                f"{self.path} is complete and has no checkpoint: put checkpoints/ back"
            )
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

    def loss(self, text: str, which: str | int = "best") -> float:
        """Nats a token of the text, read as a document from its start, in windows of context_len.

        Raises ValueError for an empty text, and for a character that the tokenizer does not know.
        """
        ids = self.tokenizer.encode_ordinary(text)
        if not ids:
            raise ValueError("the text is empty: there is no token to predict")
        document = np.array([self.tokenizer.eot_id, *ids])
        return float(scoring.token_nats(self._model_in_use(which), document).mean())

    def sample(
        self,
        prompt: str | None = None,
        *,
        max_tokens: int = SampleConfig.max_tokens,
        temperature: float = SampleConfig.temperature,
        top_k: int = SampleConfig.top_k,
        top_p: float = SampleConfig.top_p,
        seed: int = SampleConfig.seed,
        stop: str = SampleConfig.stop,
        which: str | int = "best",
    ) -> str:
        """The prompt and what the model writes after it: what `python -m lm.sample` prints.

        Without a prompt it is what suits the run's text; an empty one is the start of a document.
        Raises ValueError for a character that the tokenizer does not know.
        """
        if prompt is None:
            prompt = readable(self.cfg.corpus.prompt, self.tokenizer)
        SampleConfig(  # which checks what it is given
            max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
        )  # fmt: skip
        pieces = generate_text(
            self._model_in_use(which), self.tokenizer, prompt, max_tokens=max_tokens,
            temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=stop,
        )  # fmt: skip
        return prompt + "".join(pieces)

    def metrics(self) -> list[dict[str, Any]]:
        """The points of the run's curves, oldest first: step, train/loss, val/bpb and others.

        A row has the columns that were measured at its step.
        """
        return read_rows(self.path / "metrics.jsonl")

    def _model_in_use(self, which: str | int) -> LanguageModel:
        """The model at a checkpoint, on a GPU if there is one; the next call finds it loaded."""
        folder = self.checkpoint(which)
        if folder not in self._loaded:
            self._loaded.clear()  # one is held at a time
            self._loaded[folder] = self.model(which).to(devices.choose("auto"))
        return self._loaded[folder]

    def _build(self) -> LanguageModel:
        return self.cfg.model.build(self.tokenizer.vocab_size)
