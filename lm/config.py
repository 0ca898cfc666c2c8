"""The whole configuration on one page: every setting, its default, its unit, and what is allowed.

    cfg = config.load("outputs/runs/.../config.resolved.yaml")      # or what Hydra composed
    model = cfg.model.build(tokenizer.vocab_size)

YAML files in conf/ only override what stands here. Loads neither torch nor wandb, so that every
configuration error is reported before anything slow starts.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from lm.settings import (
    MISSING,
    Affects,
    Part,
    Settings,
    at_least,
    base_model,
    mix_parts,
    one_of,
    or_word,
    reading,
    rules,
    setting,
    within,
    yaml_files,
    zero_or,
)
from lm.settings.commands import SampleConfig
from lm.system.errors import ConfigError

RESOLVED = "config.resolved.yaml"  # a run's own copy of its settings


# ------------------------------------------------------------------------------------- corpus


@dataclass
class CorpusConfig(Part):
    group: ClassVar[str] = "corpus"
    prompt: ClassVar[str] = "The"  # what samples continue unless told; "": the start of a document
    example: ClassVar[str] = "The king said"  # what the lens looks at unless told
    val_fraction: float = within(0.1, 0.001, 0.9)  # of the documents, or of one text's characters
    # documents that repeat an earlier one: left out, on one side of the split, or as they come
    near_duplicates: str = one_of("drop", "together", "keep")


@dataclass
class PydocsConfig(CorpusConfig):
    builds: ClassVar[str] = "lm.corpora.pydocs:Pydocs"
    name: str = "pydocs"


@dataclass
class ShakespeareConfig(CorpusConfig):
    builds: ClassVar[str] = "lm.corpora.download:Shakespeare"
    name: str = "shakespeare"
    near_duplicates: str = one_of("keep")  # one text, as everybody quotes it


@dataclass
class NamesConfig(CorpusConfig):
    builds: ClassVar[str] = "lm.corpora.download:Names"
    prompt: ClassVar[str] = ""
    example: ClassVar[str] = "emma"
    name: str = "names"
    near_duplicates: str = one_of("keep")  # words, repetitions and all


@dataclass
class FilesConfig(CorpusConfig):
    builds: ClassVar[str] = "lm.corpora.files:Files"
    name: str = "files"
    path: Any = setting(MISSING, path=True)  # a file, folder or glob, or a list: .txt, .jsonl, .csv
    field: str = "text"  # of a record: what holds the text; a.b is b inside a
    errors: str = one_of("strict", "replace")  # what to do with bytes that are not UTF-8

    def __post_init__(self) -> None:
        super().__post_init__()
        rules.check_paths(self.path)


@dataclass
class ShardsConfig(CorpusConfig):
    """Files of any size: training begins with a part of them while the others are packed."""

    builds: ClassVar[str] = "lm.corpora.shards:Shards"
    name: str = "shards"
    path: Any = setting(MISSING, path=True)  # as of corpus=files
    field: str = "text"  # as of corpus=files
    errors: str = one_of("strict", "replace")  # as of corpus=files
    near_duplicates: str = one_of("drop", "keep")  # in the first part, and in each shard by itself
    shard_mb: int = at_least(64, 1, 10_000)  # text of a shard, which is packed by itself
    first_mb: int = at_least(16, 1, 10_000)  # text to begin with: tokenizer, validation, counts

    def __post_init__(self) -> None:
        super().__post_init__()
        rules.check_paths(self.path)


@dataclass
class HubConfig(CorpusConfig):
    builds: ClassVar[str] = "lm.corpora.hub:Hub"
    name: str = "hub"
    dataset: str = MISSING  # of the Hugging Face hub: OWNER/SET
    config: str = ""  # a part of the set; "": the only one, or `default`
    split: str = "train"  # of the set; it is divided into training and validation here
    field: str = "text"  # the column that holds the text; a.b is b inside a
    revision: str = "main"  # a branch, tag or commit

    def __post_init__(self) -> None:
        super().__post_init__()
        rules.check_dataset(self.dataset)


@dataclass
class GrammarConfig(CorpusConfig):
    builds: ClassVar[str] = "lm.corpora.grammar:Grammar"
    prompt: ClassVar[str] = ""
    example: ClassVar[str] = "some farmers follow the student."
    name: str = "grammar"
    near_duplicates: str = one_of("keep")  # its repetitions belong to its entropy
    n_documents: int = at_least(20_000, 100, 10**7)  # one sentence each
    seed: int = at_least(0, 0)  # of the text; the rules are fixed


@dataclass
class MixConfig(CorpusConfig):
    """Several corpora, each split and packed by itself; a row of a batch comes from one of them."""

    builds: ClassVar[str] = "lm.corpora.mixed:Mixed"
    name: str = "mix"
    near_duplicates: str = one_of("drop", "keep")  # of all parts: the first of them keeps its own
    parts: dict[str, Any] = field(default_factory=dict)  # a corpus each: name=, or path= of files
    weights: dict[str, float] = field(default_factory=dict)  # share of the windows from each part

    def __post_init__(self) -> None:
        super().__post_init__()
        self.part_configs()
        mix_parts.check_weights(self.weights, self.parts)

    def part_configs(self) -> dict[str, CorpusConfig]:
        """The checked corpus of each part; what it does not say itself it has from the mix."""
        defaults: dict[str, object] = {"val_fraction": self.val_fraction}
        if self.near_duplicates == "keep":
            defaults["near_duplicates"] = "keep"
        return mix_parts.load(CorpusConfig, self.parts, defaults)


# ---------------------------------------------------------------------------------- tokenizer


@dataclass
class TokenizerConfig(Part):
    group: ClassVar[str] = "tokenizer"
    # what packs the corpus, to the same ids; auto: gigatoken (extra `data`) where it can, from 1 MB
    engine: str = one_of("auto", "own", "gigatoken", affects="nothing")


@dataclass
class CharConfig(TokenizerConfig):
    name: str = "char"


@dataclass
class ByteConfig(TokenizerConfig):
    name: str = "byte"


@dataclass
class BPEConfig(TokenizerConfig):
    name: str = "bpe"
    vocab_size: int = at_least(1024, 257, 1 << 20)  # 256 bytes, merges and special tokens together
    pattern: str = "gpt4"  # how text is cut before merging: gpt4, gpt2 or a regex
    tie_break: str = one_of("first-pair", "greatest-bytes")  # between equally frequent pairs


@dataclass
class HFTokenizerConfig(TokenizerConfig):
    """The tokenizer in a Hugging Face folder, as it is."""

    name: str = "hf"
    path: str = setting(MISSING, path=True)


# -------------------------------------------------------------------------------------- model


@dataclass
class ModelConfig(Part):
    group: ClassVar[str] = "model"
    width_keys: ClassVar[tuple[str, ...]] = ("n_embd", "n_hidden", "n_mlp")  # they grow together
    depth_key: ClassVar[str] = "n_layer"
    context_len: int = within(128, 2, 1 << 20)  # tokens a training window holds
    lr_scale: float = at_least(1.0, 0.0, 1e4)  # factor on the optimizer's rates for this model
    # n_embd of the model for which rates, decay and initial sizes are meant. 0: this one
    base_width: int = within(0, 0, 1 << 16)
    base_depth: int = within(0, 0, 1024)  # n_layer of that model; 0: this one's

    def __post_init__(self) -> None:
        super().__post_init__()
        self.base_sizes()

    def base(self) -> Self:
        """The model from which the settings are carried over: see lm/models/parametrization.py.

        Raises ConfigError where there is none, as its widths would be no whole numbers.
        """
        return replace(self, **self.base_sizes())

    def base_sizes(self) -> dict[str, int]:
        """The settings in which the base differs; ConfigError where it can be none."""
        return base_model.sizes(self, self.width_keys, self.depth_key)


@dataclass
class BigramCountsConfig(ModelConfig):
    builds: ClassVar[str] = "lm.models.bigram_counts:BigramCounts"
    name: str = "bigram_counts"
    add_k: float = at_least(1.0, 1e-9, 1e9)  # counts added to every pair


@dataclass
class NgramConfig(ModelConfig):
    builds: ClassVar[str] = "lm.models.ngram:Ngram"
    name: str = "ngram"
    order: int = within(5, 1, 16)  # tokens in the longest counted sequence, the predicted included


@dataclass
class BigramConfig(ModelConfig):
    builds: ClassVar[str] = "lm.models.bigram:Bigram"
    name: str = "bigram"
    lr_scale: float = at_least(10.0, 0.0, 1e4)  # a table's row moves only when its token occurs


@dataclass
class MLPConfig(ModelConfig):
    builds: ClassVar[str] = "lm.models.mlp:MLP"
    name: str = "mlp"
    window: int = within(8, 1, 1 << 16)  # previous tokens it sees
    n_embd: int = within(64, 1, 1 << 16)  # per token
    n_hidden: int = within(256, 1, 1 << 20)  # width of the hidden layer
    dropout: float = within(0.0, 0.0, 0.99)  # share of numbers set to 0 in training


@dataclass
class GRUConfig(ModelConfig):
    builds: ClassVar[str] = "lm.models.gru:GRU"
    name: str = "gru"
    n_layer: int = within(1, 1, 1024)  # GRUs on top of each other
    n_embd: int = within(128, 1, 1 << 16)  # per token
    n_hidden: int = within(256, 1, 1 << 20)  # width of the state
    dropout: float = within(0.0, 0.0, 0.99)  # share of numbers set to 0 in training


@dataclass
class TransformerConfig(ModelConfig):
    builds: ClassVar[str] = "lm.models.transformer:Transformer"
    name: str = "transformer"
    n_layer: int = within(4, 1, 1024)  # blocks of attention and MLP
    n_head: int = within(4, 1, 1024)  # of attention; they share n_embd
    n_kv_head: int = within(0, 0, 1024)  # heads of keys and values (GQA); 0: as many as n_head
    n_embd: int = within(128, 1, 1 << 16)  # width of the residual stream
    n_mlp: int = within(0, 0, 1 << 20)  # in the MLP; 0: 4 n_embd, or 8/3 n_embd for swiglu
    positions: str = one_of("rope", "learned")  # rotated queries and keys, or a table
    rope_base: float = at_least(10_000.0, 1.0, 1e12)  # the longest wavelength is 2 pi times it
    norm: str = one_of("rmsnorm", "layernorm")  # before attention, MLP and head
    norm_eps: float = at_least(1e-5, 1e-12, 1.0)  # GPT-2's and Llama's
    activation: str = one_of("relu2", "gelu", "swiglu")  # in the MLP
    qk_norm: bool = True  # RMS-normalise queries and keys, per head
    embed_norm: bool = False  # RMS-normalise what the first block reads, as nanochat does
    bias: bool = False  # in the linear layers and the LayerNorms
    tie: bool = True  # the head is the embedding, transposed
    softcap: float = zero_or(0.0, 0.1, 1e6)  # logits to softcap * tanh(logits / softcap); 0: off
    dropout: float = within(0.0, 0.0, 0.99)  # share of numbers set to 0 in training
    init_std: float = at_least(0.02, 1e-6, 1e3)  # of new matrices; GPT-2's, for a width of 768
    embed_std: float = at_least(0.02, 1e-6, 1e3)  # of new embeddings of tokens and positions
    base_n_head: int = within(0, 0, 1024)  # n_head of the model of base_width; 0: this one's

    def base_sizes(self) -> dict[str, int]:
        sizes = super().base_sizes() | {"base_n_head": 0}
        return sizes | base_model.heads(
            self.n_head, self.n_kv_head, self.base_n_head, self.base_width
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        rules.check_heads(self.n_embd, self.n_head, self.n_kv_head, self.positions)
        if self.base_width:
            with base_model.naming(self.base_width):
                self.base()


# --------------------------------------------------------------------- optimizer and schedule


@dataclass
class OptimizerConfig(Part):
    group: ClassVar[str] = "optimizer"
    copies: ClassVar[int] = 2  # of each weight, in memory: itself, its gradient, what is kept of it
    follows_width: ClassVar[bool] = False  # whether model.base_width has rules for its rates


@dataclass
class AdamWConfig(OptimizerConfig):
    builds: ClassVar[str] = "lm.optim.groups:adamw"
    copies: ClassVar[int] = 4
    follows_width: ClassVar[bool] = True
    name: str = "adamw"
    lr: float = at_least(3e-3, 0.0, 1e38)  # the highest rate, where the schedule is at 1
    beta1: float = within(0.9, 0.0, 1.0, below=True)  # decay of the gradient average
    beta2: float = within(0.95, 0.0, 1.0, below=True)  # decay of the squares' average
    eps: float = at_least(1e-8, 1e-20, 1.0)  # float32 squares below it are 0
    # of matrices, not of embeddings; auto: as tokens and size ask for
    weight_decay: Any = or_word(at_least(0.1, 0.0, 1e6), "auto", whole=False)


@dataclass
class MuonConfig(OptimizerConfig):
    builds: ClassVar[str] = "lm.optim.groups:muon_and_adamw"
    copies: ClassVar[int] = 3
    follows_width: ClassVar[bool] = True
    name: str = "muon"
    lr: float = at_least(0.03, 0.0, 1e38)  # spectral norm of one hidden matrix's update
    momentum: float = within(0.95, 0.0, 0.9999)  # of the gradient average, Nesterov
    # of matrices, not of embeddings; auto: as tokens and size ask for
    weight_decay: Any = or_word(at_least(0.0, 0.0, 1e6), "auto", whole=False)
    # of all that is no hidden matrix: embeddings, head, gains. 0: a fifth of lr.
    adamw_lr: float = at_least(0.0, 0.0, 1e38)
    beta1: float = within(0.9, 0.0, 1.0, below=True)  # of AdamW: decay of the gradient average
    beta2: float = within(0.95, 0.0, 1.0, below=True)  # decay of the squares' average
    eps: float = at_least(1e-8, 1e-20, 1.0)  # float32 squares below it are 0


@dataclass
class ScheduleConfig(Part):
    group: ClassVar[str] = "schedule"
    warmup: float = within(0.1, 0.0, 1.0)  # share of the run in which the rate rises from 0


@dataclass
class ConstantConfig(ScheduleConfig):
    builds: ClassVar[str] = "lm.optim.schedule:constant"
    name: str = "constant"


@dataclass
class CosineConfig(ScheduleConfig):
    builds: ClassVar[str] = "lm.optim.schedule:cosine"
    name: str = "cosine"
    final: float = within(0.1, 0.0, 1.0)  # last rate as a share of the highest


@dataclass
class WSDConfig(ScheduleConfig):
    builds: ClassVar[str] = "lm.optim.schedule:wsd"
    name: str = "wsd"
    decay: float = within(0.3, 0.0, 1.0)  # share of the run in which the rate falls to `final`
    final: float = within(0.0, 0.0, 1.0)  # last rate as a share of the highest

    def __post_init__(self) -> None:
        super().__post_init__()
        rules.check_phases(self.warmup, self.decay)


@dataclass
class RangeConfig(ScheduleConfig):
    """For a learning-rate range test: `lm.report` reads the suggested rate off the losses."""

    builds: ClassVar[str] = "lm.optim.schedule:rising"
    name: str = "range"
    warmup: float = within(0.0, 0.0, 0.0)  # the whole run is one
    first: float = within(1e-4, 1e-12, 1.0)  # where the rate begins, as a share of the last


# ---------------------------------------------------------------------------- train and track


@dataclass
class TrainConfig(Settings):
    # affects: result (unless said), rounding (the last bits), nothing (neither weights nor scores)
    group: ClassVar[str] = "train"
    steps: int = at_least(2000, 1)  # optimizer updates
    # if above 0, the budget instead of steps; 20x: for each parameter between embedding and head
    tokens: Any = or_word(at_least(0, 0), "20x", whole=True)
    flops: float = at_least(0.0, 0.0, 1e30)  # of training, if above 0, the budget instead of steps
    seconds: float = at_least(0.0, 0.0, 1e9)  # of training, if above 0, the budget instead of steps
    # evaluations in a row without a better val/bpb after which a run ends early; 0: none. It ends
    # before its rate has fallen, so schedule=constant suits it
    patience: int = at_least(0, 0, 1_000_000)
    # windows of context_len tokens per step; auto: as many as train.tokens ask for
    batch_size: Any = or_word(at_least(8, 1, 1 << 20), "auto", whole=True)
    # windows per pass; 0: all; auto: as many as fit
    micro_batch: Any = setting(0, affects="rounding")
    n_proc: int = at_least(1, 1, 4096, "rounding")  # processes that share a batch, one per GPU
    # of a batch, added in one order: any n_proc up to it has the same bits; 0: off
    parts: int = zero_or(0, 1, 4096, "rounding")
    dist_timeout: float = at_least(600.0, 1.0, 1e7, "nothing")  # seconds to wait for one of them
    # each process keeps 1/n_proc of weights and states (FSDP2)
    shard: bool = setting(False, affects="rounding")
    clip: float = zero_or(1.0, 1e-6, 1e9)  # largest gradient norm; 0: off
    skip: int = at_least(3, 0)  # steps in a row without a finite loss and gradient that are skipped
    rollbacks: int = at_least(1, 0)  # returns to a checkpoint after more of them; then it stops
    spike: float = at_least(8.0, 0.0, 1e9, "nothing")  # deviations of a flagged loss; 0: none
    spike_window: int = at_least(100, 20, 10_000, "nothing")  # losses to compare it with
    log_every: int = at_least(10, 1, 100_000, "nothing")  # steps between points of the curve
    # steps; 0: at the end only. The best score depends on it
    eval_every: int = at_least(400, 0, unnamed=True)
    sample_every: int = at_least(1000, 0, affects="nothing")  # likewise
    save_every: int = at_least(400, 0, affects="nothing")  # likewise; where a rollback returns to
    keep_last: int = at_least(2, 1, affects="nothing")  # checkpoints; the best one is kept besides
    # other texts to score: a corpus's name, or files
    also: list[str] = setting([], affects="nothing", path=True)
    # what the grammar tells right from wrong; or all
    tasks: list[str] = setting([], affects="nothing")
    # one sample each; none: what suits the text
    prompts: list[str] = setting([], affects="nothing")
    sample_len: int = at_least(128, 1, 1 << 20, "nothing")  # tokens
    # of samples; 0: the likeliest token
    temperature: float = at_least(SampleConfig.temperature, 0.0, 1e30, "nothing")
    # auto: a GPU if there is one. Dropout draws differ from device to device.
    device: str = one_of("auto", "cpu", "cuda", "mps", affects="rounding")
    dtype: str = one_of("auto", "float32", "bfloat16")  # of matrix products; weights: float32
    # auto: where a run is long enough; graphs: a GPU's steps replayed, for very small models.
    compile: str = one_of("auto", "on", "off", "graphs", affects="rounding")
    # of the CPU, in each process; 0: PyTorch's choice, or with train.parts 1
    threads: int = at_least(0, 0, 1024, "rounding")
    # same bits from the same command and machine
    deterministic: bool = setting(True, affects="rounding")

    def budgets(self) -> list[str]:
        """What is set to end a run in place of `steps`, as train.KEY=VALUE."""
        values = {"tokens": self.tokens, "flops": self.flops, "seconds": self.seconds}
        return [f"train.{key}={value}" for key, value in values.items() if value]

    def n_threads(self) -> int:
        """Threads of the CPU in each process; 0: PyTorch's choice, which depends on n_proc."""
        return self.threads or (1 if self.parts else 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        rules.check_budgets(self.budgets())
        rules.check_patience(self.patience, self.eval_every)
        if isinstance(self.micro_batch, str) and self.micro_batch.isdecimal():
            self.micro_batch = int(self.micro_batch)
        rules.check_micro_batch(self.micro_batch, self.batch_size, self.n_proc, self.compile)
        if self.shard:
            rules.check_sharding(self.n_proc, self.compile)
        if self.parts:
            rules.check_parts(self.parts, self.n_proc)
            rules.check_beside_parts(
                self.parts,
                self.micro_batch,
                self.shard,
                self.compile,
                self.deterministic,
                self.seconds,
            )
        if self.batch_size != "auto":
            rules.check_even_shares(self.batch_size, self.micro_batch, self.n_proc)
            if self.parts:
                rules.check_even_parts(self.batch_size, self.parts)


@dataclass
class TrackConfig(Settings):
    group: ClassVar[str] = "track"
    affects: ClassVar[Affects] = "nothing"
    mode: str = one_of("auto", "online", "offline", "off")  # auto: online with a key, else offline
    project: str = "lm"  # of W&B
    entity: str | None = None  # W&B user or team; None: the account's default
    tags: list[str] = field(default_factory=list)  # of the run in W&B
    name: str = ""  # of the run in W&B; empty: its model and what sets it apart
    notes: str = ""  # of the run in W&B
    artifacts: str = one_of("model", "all", "none")  # model: with its tokenizer; all: the data too
    registry: str = ""  # of W&B, for the best model, of a sweep's the best: NAME or NAME/COLLECTION
    histograms: int = at_least(0, 0)  # steps between those of weights and gradients; 0: none
    init_timeout: int = at_least(20, 1, 3600)  # seconds until a silent server is given up
    finish_timeout: int = at_least(60, 1, 86_400)  # seconds that a run's end may take
    lens: bool = False  # write lens.html at the end of the run and show it in W&B

    def __post_init__(self) -> None:
        super().__post_init__()
        rules.check_registry(self.registry)


@dataclass(repr=False)
class Config(Settings):
    """One training run."""

    corpus: CorpusConfig = MISSING
    tokenizer: TokenizerConfig = MISSING
    model: ModelConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    schedule: ScheduleConfig = MISSING
    train: TrainConfig = field(default_factory=TrainConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    # for reports and W&B; an experiment's number and name.
    name: str = setting("", affects="nothing")
    init_from: str = setting("", path=True)  # a Hugging Face folder: its model, weights, tokenizer
    kept_with_init_from: ClassVar = ("context_len", "dropout")  # of the model, the run's own
    seed: int = within(0, 0, 2**32 - 1)  # of weights, batches, dropout and samples

    def __repr__(self) -> str:
        return (
            f"<Config of a {self.model.name} on {self.corpus.name}, {self.tokenizer.name} tokens>"
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.name) > 100 or not (self.name + " ").isprintable():
            raise ConfigError(f"name={self.name[:100]!a}: one line of at most 100 characters")
        rules.check_words(self.unresolved(), self.train.tokens, self.train.budgets())
        if self.train.batch_size != "auto":
            rules.check_batch_tokens(self.train.batch_size, self.model.context_len)
        decay = getattr(self.optimizer, "weight_decay", 0.0)
        if decay != "auto":
            lr = getattr(self.optimizer, "lr", 0.0) * self.model.lr_scale
            rules.check_weight_decay(lr, decay)
        if self.train.shard:
            rules.check_sharded_extras(self.optimizer.name, self.track.histograms)

    def unresolved(self) -> list[str]:
        """The settings that follow from others and have no number yet: `auto` or `20x`."""
        values = {
            "train.tokens": self.train.tokens,
            "train.batch_size": self.train.batch_size,
            "optimizer.weight_decay": getattr(self.optimizer, "weight_decay", 0.0),
        }
        return [key for key, value in values.items() if isinstance(value, str)]


# ------------------------------------------------------------------------------ load and save

PARTS: dict[str, type[Part]] = {
    "corpus": CorpusConfig,
    "tokenizer": TokenizerConfig,
    "model": ModelConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
}
GROUPS = (*PARTS, "train", "track")
BUDGETS = ("train.steps", "train.tokens", "train.flops", "train.seconds", "train.patience")


def options(group: str) -> dict[str, type[Part]]:
    """The parts of a group by name: {"transformer": TransformerConfig, ...}."""
    return PARTS[group].options()


def load(source: Mapping | str | Path) -> Config:
    """A checked Config from nested values or a saved YAML file.

    Raises ConfigError, naming every unknown key, wrong type, missing value and broken rule.
    """
    if isinstance(source, (str, Path)):
        source = saved_values(Path(source))
    return reading.load(Config, source)


def saved_values(path: Path) -> dict[str, Any]:
    """The settings in a run's file, not checked; one that is older than a setting has what the
    code did before that.
    """
    values = yaml_files.read_yaml(path)
    corpus = values.get("corpus")
    if isinstance(corpus, dict):
        corpus.setdefault("near_duplicates", "keep")
    return values


def save(cfg: Config, path: Path) -> None:
    """Write every setting as YAML that `load` reads back to an equal Config."""
    yaml_files.save(cfg, path)


def flat(cfg: Config) -> dict[str, Any]:
    """Every setting by its dotted key: {"model.n_layer": 4, ...}."""
    return reading.flat_values(asdict(cfg))


def public(values: Mapping[str, object]) -> dict[str, Any]:
    """Settings, nested or flat, as they may leave this machine: see `files.public` of a path."""
    return reading.public(values, is_path)


def is_path(key: str) -> bool:
    """Whether a setting of a run is the name of a file or folder, or a list of them."""
    group, _, name = key.rpartition(".")
    if group.startswith("corpus.parts."):
        key = f"corpus.{name}"
    return reading.has_rule(Config, key, "path")


def names_runs(key: str) -> bool:
    """Whether a report names runs by this setting, and not only where nothing else differs."""
    return not reading.has_rule(Config, key, "unnamed")


def affects(key: str) -> Affects:
    """What a change of a setting, such as train.keep_last, or of a group changes.

    Runs that differ only in what affects nothing are one arm of a report.
    """
    return reading.effect(Config, key)


def keeps_result(key: str) -> bool:
    """Whether a change of this setting leaves weights and scores as they are, rounding apart.

    It decides what may change on resume=, and with which settings a search goes on.
    """
    return affects(key) != "result"
