"""Loss, perplexity and bits per byte of a model over a whole split, or its scores on tasks.

python -m lm.evaluate run=latest split=val
python -m lm.evaluate run=latest corpus=my.txt           # all of it; or split=val
python -m lm.evaluate run=latest tasks=arc_easy,my.yaml  # of lm_eval
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("evaluate")

import math
from pathlib import Path

import numpy as np

from lm.config import FilesConfig, ShardsConfig
from lm.corpora import overlap
from lm.corpora.base import TooShortError
from lm.data import pipeline, token_files
from lm.launch import cli
from lm.launch.named_corpus import named
from lm.record import ownership
from lm.record.run import Run
from lm.record.schemas import DataRecord, read_part
from lm.scoring import evaluate
from lm.settings.commands import EvaluateConfig
from lm.system import devices, files
from lm.system.errors import ConfigError, no_code_for
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
    if cfg.tasks:
        score_tasks(run, cfg)
        return
    if cfg.limit:
        raise ConfigError(f"limit={cfg.limit} is of tasks=, and there are none")
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
    ids = ids_of(prepared, split)
    result = evaluate(model, ids, run.tokenizer.token_lengths())
    print_line(f"run         {run.path}  ({run.cfg.model.name}, checkpoint {cfg.checkpoint})")
    size = f"{result['tokens']:,} tokens, {result['bytes']:,} bytes"
    name = f"{cfg.corpus or run.cfg.corpus.name} {split}"
    if isinstance(text, ShardsConfig) and split != "val":
        name += " of the first part"  # the shards behind it are not read
    print_line(f"text        {name}: {size}, windows of {model.context_len}")
    if copied := copied_from_training(run, prepared, ids):
        print_line(f"copied      {overlap.in_words(copied, 'it')}")
    bits = result["loss"] / math.log(2)
    print_line(f"loss        {result['loss']:.4f} nats a token ({bits:.4f} bits)")
    print_line(f"perplexity  {result['ppl']:.3f} a token")
    print_line(f"bits/byte   {result['bpb']:.4f}")


def ids_of(prepared: pipeline.Prepared, split: str) -> np.ndarray:
    """The tokens (N,) of a split: val, train, or all of the text."""
    if split == "val":
        return prepared.val
    if split == "train":
        return prepared.train
    if split == "all":
        return np.concatenate([prepared.train, prepared.val])
    raise no_code_for("split", split)


def score_tasks(run: Run, cfg: EvaluateConfig) -> None:
    """Print the results of tasks of lm-evaluation-harness."""
    if cfg.corpus or cfg.split != "auto":
        word = f"corpus={cfg.corpus}" if cfg.corpus else f"split={cfg.split}"
        raise ConfigError(f"tasks= brings its own texts: leave out {word}")
    try:
        from lm import harness
    except ModuleNotFoundError as error:
        raise ConfigError(f"tasks= needs {error.name}: pip install lm_eval") from None
    model = run.model(cfg.checkpoint).to(devices.choose(cfg.device))
    tasks = [task for task in cfg.tasks.split(",") if task]
    results = harness.evaluate(model, run.tokenizer, tasks, cfg.limit)
    print_line(f"run         {run.path}  ({run.cfg.model.name}, checkpoint {cfg.checkpoint})")
    print_line(f"harness     lm_eval {harness.VERSION}, contexts of {model.context_len} tokens")
    width = max(10, *map(len, results))
    for name, result in results.items():
        size = f"{result.documents:,} documents" if result.documents else "a group"
        print_line(f"{name:{width}}  {size}")
        for metric, (value, error) in result.metrics.items():
            spread = "" if error is None else f" +- {error:.4f}"
            print_line(f"{'':{width}}  {metric} {value:.4f}{spread}")


if __name__ == "__main__":
    cli.main(EvaluateConfig, command)
