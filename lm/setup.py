"""From a configuration to a run that is ready to go: data, model, optimizers, update, state.

run = setup.set_up(cfg, Path("outputs/runs/today"))
run.state.step, run.progress()
"""

import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from lm import baselines, first_lines
from lm.config import Config, FilesConfig, MixConfig
from lm.corpora import overlap, pairs
from lm.data import engines, pipeline
from lm.data.batches import Batches
from lm.data.mixed_batches import MixedBatches
from lm.data.packing import packed_beside
from lm.data.shard_batches import ShardBatches
from lm.generate import readable
from lm.launch.named_corpus import named, short_name
from lm.models.base import LanguageModel
from lm.optim import contract, footprint
from lm.record import checkpoint, origin
from lm.record.state import Budget, TrainState
from lm.system import devices, distributed, memory, ranks, seeds
from lm.system.errors import ConfigError, StorageError
from lm.tokenizers import Tokenizer
from lm.update import UnreadNumbers, Update, should_compile

log = logging.getLogger(__name__)
SURELY_SHORT = 1e12  # operations: of so few, no run is worth compiling, nor its pace a measurement


@dataclass
class TrainingRun:
    """Everything one run is made of, and `state`, which says where it stands."""

    cfg: Config
    out: Path
    tokenizer: Tokenizer
    val_ids: np.ndarray  # (n,) uint16 or uint32
    other_texts: dict[str, np.ndarray]  # ids to score besides, by the name of the text
    tasks: dict[str, list[tuple[str, str]]]  # pairs of a right and a wrong text, by task
    prompts: list[str]
    baselines: dict[str, float]  # bits per byte that counting reaches, by the name of their metric
    model: LanguageModel
    eval_dtype: torch.dtype  # of the matrix products of validation
    optimizers: list[torch.optim.Optimizer]
    batches: Batches
    budget: Budget
    update: Update
    state: TrainState
    beside: contextlib.AbstractContextManager[None]  # packs later shards while the loop trains
    peak_flops: float | None  # operations a second that the device can do at most; None: not known
    # What the loop keeps between two steps, and no checkpoint holds:
    unread: UnreadNumbers = field(default_factory=UnreadNumbers)
    numbers: dict[str, float] = field(default_factory=dict)  # of the last step that was read
    step_seconds: list[float] = field(default_factory=list)  # since the last logged point
    save_error: StorageError | None = None  # why the last save failed

    def progress(self) -> float:
        """The share of the run that is done, from 0 to 1."""
        return self.budget.progress(self.state)

    def due(self, every: int) -> bool:
        """Whether something that happens every so many steps happens now.

        Everything happens at the end, and where `every` is above 0 at step 0 too.
        """
        return self.progress() >= 1 or (every > 0 and self.state.step % every == 0)

    def may_be_due(self, step: int) -> bool:
        """Whether `due` may say yes at that step, which is still to come."""
        cfg = self.cfg.train
        intervals = (cfg.eval_every, cfg.sample_every, cfg.save_every, self.budget.steps)
        return self.goes_by_clock or any(every and step % every == 0 for every in intervals)

    @property
    def goes_by_clock(self) -> bool:
        """Whether something is due by state.seconds, on which all processes then agree."""
        return self.budget.seconds > 0


def set_up(
    cfg: Config, out: Path, initial_weights: Callable[[LanguageModel], None] | None = None
) -> TrainingRun:
    """A run in the directory `out`, at its last checkpoint or before its first step.

    `initial_weights` fills a new model with weights from elsewhere. Raises ValueError where text,
    tokenizer, model or checkpoint do not fit each other, before anything is trained.
    """
    devices.configure(cfg.train.n_threads(), cfg.train.deterministic)
    device = devices.choose(cfg.train.device)
    contract.check_schedule(cfg.schedule)
    with ranks.rank_0_first():
        prepared = _prepared(cfg)
        known_baselines = _baselines(prepared)
        other_texts = _other_texts(cfg, prepared)
    tokenizer = prepared.tokenizer
    prompts = _prompts(cfg, tokenizer)
    ranks.on_rank_0(origin.record_data, out, prepared)
    checkpoint.check_newest_fits(out, lambda: cfg.model.build(tokenizer.vocab_size))
    model, dtype = _build_model(cfg, tokenizer.vocab_size, device)
    ranks.on_rank_0(origin.record_code, out, device, dtype, cfg.train)

    trainable = model.trainable
    optimizers = contract.build_optimizers(cfg.optimizer, model, dtype) if trainable else []
    batches = _batches(cfg, prepared, model.context_len).to(device)
    run = TrainingRun(
        cfg=cfg,
        out=out,
        tokenizer=tokenizer,
        val_ids=prepared.val,
        other_texts=other_texts,
        tasks=_tasks(cfg, tokenizer),
        prompts=prompts,
        baselines=known_baselines,
        model=model,
        # On a CPU evaluation is a small part of a run, and float32 scores are comparable anywhere.
        eval_dtype=dtype if device.type == "cuda" else torch.float32,
        optimizers=optimizers,
        batches=batches,
        budget=make_budget(cfg, model),
        update=Update(model, optimizers, batches, cfg, device, dtype),
        state=TrainState(),
        beside=_beside(prepared),
        peak_flops=devices.peak_flops(device),
    )
    with footprint.named(model, cfg, device):
        saved = checkpoint.resume(out, model, optimizers)
    if saved is not None:
        run.state = saved
    else:
        _begin(model, prepared, initial_weights)
    run.update.use_micro_batch(run.state.micro_batch)
    for line in first_lines.lines(cfg, model, batches, run.budget, device, dtype):
        log.info(line)
    _compile_if_worth_it(run, device)
    return run


def _prepared(cfg: Config) -> pipeline.Prepared:
    """The data of a run. Raises ConfigError for an engine that is not there, or of no use."""
    engines.check(cfg.tokenizer.engine)  # before minutes of work
    prepared = pipeline.prepare(cfg)
    engines.check(cfg.tokenizer.engine, prepared.tokenizer)  # also where nothing had to be packed
    return prepared


def make_budget(cfg: Config, model: LanguageModel) -> Budget:
    """The budget of a configuration: steps, or what tokens, operations or seconds come to.

    Raises ValueError for a budget in operations of a model without matrix products.
    """
    if not model.trainable:
        return Budget(0)  # counts need no gradient steps
    tokens = cfg.train.tokens
    if cfg.train.flops:
        flops_per_token = model.flops_per_token()
        if not flops_per_token:
            raise ValueError("train.flops: this model has no matrix products; give train.tokens")
        tokens = max(1, math.ceil(cfg.train.flops / flops_per_token))
    steps = cfg.train.steps
    if tokens:
        steps = math.ceil(tokens / (cfg.train.batch_size * model.context_len))
    return Budget(steps, cfg.train)


def _build_model(
    cfg: Config, vocab_size: int, device: torch.device
) -> tuple[LanguageModel, torch.dtype]:
    """A new model on its device, or its shard there, and the dtype of its matrix products.

    Raises OutOfMemoryError where its weights are too many to train.
    """
    shapes = memory.skeleton(lambda: cfg.model.build(vocab_size))
    footprint.check(shapes, cfg, device)
    torch.manual_seed(seeds.seed(cfg.seed, "init"))
    with footprint.named(shapes, cfg, device):
        model: LanguageModel = cfg.model.build(vocab_size)
    dtype = devices.matmul_dtype(cfg.train.dtype, device, model.low_precision)
    if cfg.train.shard:
        distributed.shard(model, device, dtype)
    else:
        model.to(device)
    return model, dtype


def _begin(
    model: LanguageModel,
    prepared: pipeline.Prepared,
    initial_weights: Callable[[LanguageModel], None] | None,
) -> None:
    """What precedes the first step of a new run."""
    _check_counts_all(model, prepared)
    model.fit(prepared.train)  # counts; nothing for a model that learns by gradient
    if initial_weights is not None:
        initial_weights(model)


def _check_counts_all(model: LanguageModel, prepared: pipeline.Prepared) -> None:
    """ConfigError for a model that counts a text at once, of which only a part is there."""
    if not model.trainable and prepared.shards:
        name = prepared.corpus.source["corpus"]
        raise ConfigError(
            f"corpus={name} is packed while a model trains, and this one counts its text at once: "
            "corpus=files reads the same files"
        )


def _batches(cfg: Config, prepared: pipeline.Prepared, context_len: int) -> Batches:
    """The batches of the training text, and of each this process's share of the rows."""
    size = cfg.train.batch_size
    rank = ranks.rank()
    n_proc = ranks.n_proc()
    if prepared.shards is not None:
        ids, shards = prepared.train, prepared.shards
        return ShardBatches(ids, shards, size, context_len, cfg.seed, rank, n_proc)
    if not isinstance(cfg.corpus, MixConfig):
        return Batches(prepared.train, size, context_len, cfg.seed, rank, n_proc)
    lengths = {name: len(ids) for name, ids in prepared.parts("train").items()}
    weights = cfg.corpus.weights
    return MixedBatches(prepared.train, lengths, weights, size, context_len, cfg.seed, rank, n_proc)


def _beside(prepared: pipeline.Prepared) -> contextlib.AbstractContextManager[None]:
    """The packing of what training will need later."""
    if prepared.shards is None or ranks.rank() > 0:
        return contextlib.nullcontext()
    return packed_beside(prepared.shards)


def _compile_if_worth_it(run: TrainingRun, device: torch.device) -> None:
    if run.progress() >= 1 or run.cfg.train.shard:
        return
    if should_compile(run.cfg.train.compile, device, lambda: seconds_uncompiled(run)):
        log.info(f"{'update':<10} {run.update.compile()}")


def seconds_uncompiled(run: TrainingRun) -> float:
    """How long the run would take from its first step to its last one, on an idle machine."""
    n_steps = run.budget.steps
    if run.budget.seconds:
        return run.budget.seconds
    if n_steps * run.batches.tokens * run.model.flops_per_token() < SURELY_SHORT:
        return 0.0
    return n_steps * run.update.seconds()


def _prompts(cfg: Config, tokenizer: Tokenizer) -> list[str]:
    """What the samples continue; ConfigError where the tokenizer cannot read what the user gave."""
    for prompt in cfg.train.prompts:
        try:
            tokenizer.encode_ordinary(prompt)
        except ValueError as error:
            raise ConfigError(f"train.prompts: of {prompt!r}, {error}") from None
    return cfg.train.prompts or [readable(cfg.corpus.prompt, tokenizer)]


def _other_texts(cfg: Config, prepared: pipeline.Prepared) -> dict[str, np.ndarray]:
    """The texts to score besides as ids: of a mix each part's validation split, and of train.also
    that of a corpus, or all of files.

    Raises ConfigError for a text that is not there, that the tokenizer cannot read, or that has
    the name of another.
    """
    texts = prepared.parts("val")
    for word in cfg.train.also:
        name = short_name(word)
        if not word or name in texts:
            raise ConfigError(f"train.also={word}: its scores would be those of val_{name}, too")
        corpus = named(word, cfg.corpus, "train.also")
        try:
            with pipeline.quietly():
                folder = pipeline.prepare_corpus(corpus)
                other = pipeline.pack(folder, prepared.tokenizer, cfg.tokenizer.engine)
        except (ValueError, OSError) as error:
            raise ConfigError(f"train.also={word}: {error}") from None
        ids = other.val
        if isinstance(corpus, FilesConfig):
            ids = np.concatenate([other.train, other.val])
        log.info(f"{'also':<10} {name:<12} {len(ids):,} tokens to score as val_{name}/bpb")
        copied = overlap.copied(prepared.train, ids, other.tokens.splits.val)
        if copied and copied.share > overlap.NOTABLE:
            log.info(f"{'overlap':<10} {name:<12} {overlap.in_words(copied, name)}")
        texts[name] = ids
    return texts


def _tasks(cfg: Config, tokenizer: Tokenizer) -> dict[str, list[tuple[str, str]]]:
    """The pairs of sentences of train.tasks; ConfigError for an unknown task."""
    names = cfg.train.tasks
    if names == ["all"]:
        names = list(pairs.PHENOMENA)
    found = {}
    for name in names:
        if name not in pairs.PHENOMENA:
            raise ConfigError(f"train.tasks={name}: choose all, or of {', '.join(pairs.PHENOMENA)}")
        found[name] = pairs.pairs(name)
        try:
            tokenizer.encode_ordinary(" ".join(found[name][0]))
        except ValueError as error:
            raise ConfigError(f"train.tasks={name}: {error}") from None
    return found


def _baselines(prepared: pipeline.Prepared) -> dict[str, float]:
    """What val/bpb is compared with: counts, and the exact entropy where it is known."""
    found = baselines.points(prepared.folder, prepared.tokenizer)
    if found and prepared.corpus.split_by in ("position", "tails"):
        baselines.warn_if_unlike(prepared.train, prepared.val, prepared.tokenizer)
    if "floor_bpb" in prepared.facts:
        found["corpus/floor_bpb"] = prepared.facts["floor_bpb"]
    return found
