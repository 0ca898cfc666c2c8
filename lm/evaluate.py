"""Loss, perplexity and bits per byte of a model over a whole split.

python -m lm.evaluate run=latest split=val
python -m lm.evaluate run=latest corpus=my.txt   # all of it; or split=val
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("evaluate")

import math
from pathlib import Path

import numpy as np

from lm.config import FilesConfig
from lm.corpora import overlap
from lm.corpora.base import TooShortError
from lm.corpora.named import named
from lm.data import pipeline, token_files
from lm.launch import cli
from lm.record import ownership
from lm.record.run import Run
from lm.record.schemas import DataRecord, read_part
from lm.scoring import evaluate
from lm.settings.commands import EvaluateConfig
from lm.system import devices, files
from lm.system.streams import print_line


def copied_from_training(
    run: Run, prepared: pipeline.Prepared, ids: np.ndarray
) -> overlap.Copied | None:
    """How much of the ids (n,) stands in the text that the run was trained on.

    None if that text is no longer in the cache, if `ids` are too few, or are the text itself.
    """
    record = read_part(run.path, DataRecord)
    if record is None:
        return None
    if ids is not prepared.val and prepared.tokens.corpus == record.tokens.corpus:
        return None
    name = Path(record.folder).name  # a stranger's run may name any folder
    if not name.startswith("tokens-"):
        return None
    try:
        train = token_files.load(files.cache_dir() / name, "train")
    except (ValueError, OSError):
        return None
    return overlap.copied(train, ids, prepared.tokens.splits.val)


def command(cfg: EvaluateConfig) -> None:
    run = Run.open(cfg.run)
    if not cfg.corpus:
        ownership.check_reads(run.path, run.cfg, cfg.trust, [ownership.CORPUS])
    model = run.model(cfg.checkpoint).to(devices.choose(cfg.device))
    text = named(cfg.corpus, run.cfg.corpus)
    try:
        prepared = pipeline.pack(pipeline.prepare_corpus(text), run.tokenizer)
    except TooShortError:
        if not cfg.corpus:
            raise
        raise ValueError(f"corpus={cfg.corpus} is too short to score: give more text") from None
    split = cfg.split
    if split == "auto":
        is_file = cfg.corpus and isinstance(text, FilesConfig)
        split = "all" if is_file else "val"
    if split == "all":
        ids = np.concatenate([prepared.train, prepared.val])
    else:
        ids = prepared.val if split == "val" else prepared.train
    result = evaluate(model, ids, run.tokenizer.token_lengths())
    print_line(f"run         {run.path}  ({run.cfg.model.name}, checkpoint {cfg.checkpoint})")
    size = f"{result['tokens']:,} tokens, {result['bytes']:,} bytes"
    name = f"{cfg.corpus or run.cfg.corpus.name} {split}"
    print_line(f"text        {name}: {size}, windows of {model.context_len}")
    if copied := copied_from_training(run, prepared, ids):
        print_line(f"copied      {overlap.in_words(copied, 'it')}")
    bits = result["loss"] / math.log(2)
    print_line(f"loss        {result['loss']:.4f} nats a token ({bits:.4f} bits)")
    print_line(f"perplexity  {result['ppl']:.3f} a token")
    print_line(f"bits/byte   {result['bpb']:.4f}")


if __name__ == "__main__":
    cli.main(EvaluateConfig, command)
