"""What each command is called and does, and its settings; those of a run are in config.py.

    cls = commands.COMMANDS["sample"]      # SampleConfig

The comment beside a setting is what `--help` says of it. Loads neither torch nor Hydra.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from lm.settings import Settings, at_least, one_of, setting, within


@dataclass
class TrainWords(Settings):
    """python -m lm.train: train one run, an experiment or a sweep."""

    resume: str = ""  # go on with this run: its directory, or latest
    experiment: str = ""  # a folder of experiments/ that holds settings; needs -m for a sweep
    overrides: list[str] = field(default_factory=list)  # the settings of the run


@dataclass
class OfRun(Settings):
    """The settings of a command that reads one run."""

    run: str = "latest"  # a run directory, the newest, or wandb:ENTITY/PROJECT/ARTIFACT:ALIAS
    checkpoint: str = "best"  # best, last or a step


@dataclass
class SampleConfig(OfRun):
    """python -m lm.sample: continue a prompt with a trained model."""

    prompt: str | None = None  # left out: what suits the run's text; empty: the start of a document
    n: int = at_least(1, 1)  # samples
    max_tokens: int = at_least(256, 1)  # in a sample, the prompt not counted
    temperature: float = at_least(0.8, 0.0, 1e30)  # 0: always the likeliest token
    top_k: int = at_least(0, 0)  # keep the k likeliest tokens; 0: all
    top_p: float = within(1.0, 1e-6, 1.0)  # keep the likeliest tokens that sum to p
    seed: int = at_least(0, 0)  # of the draws; each further sample adds 1
    stop: str = ""  # end at this text; the end-of-document token always ends a sample
    interactive: bool = False  # a prompt line that remembers
    compile: bool = False  # a transformer's step, on a GPU: pays from some thousand tokens on
    device: str = one_of("auto", "cpu", "cuda", "mps")  # auto: a GPU if there is one


@dataclass
class EvaluateConfig(OfRun):
    """python -m lm.evaluate: loss, perplexity and bits per byte of a model, or tasks."""

    split: str = one_of("auto", "val", "train", "all")  # auto: all of a file, else val
    corpus: str = setting("", path=True)  # another one: its name, file, folder or glob
    tasks: str = ""  # instead: of lm-evaluation-harness, names or .yaml files
    limit: int = at_least(0, 0)  # documents read of each task; 0: all
    device: str = one_of("auto", "cpu", "cuda", "mps")  # auto: a GPU if there is one
    trust: bool = False  # read what the settings of a run from elsewhere name


@dataclass
class LensConfig(OfRun):
    """python -m lm.lens: see what a model does with a text, bytes to probabilities.

    Settings of lm.train, such as model=gru model.n_layer=2, show such a model before training.
    """

    run: str = ""  # a run directory; empty: the newest, unless settings describe a model
    prompt: str | None = None  # left out: an example that suits the text
    layer: int = within(-1, -1024, 1023)  # the one to begin with; -1 is the last
    out: str = setting("", path=True)  # the page; empty: lens.html in the run, or here
    seed: int = at_least(0, 0)  # of the draws that the page shows: lm.sample's
    # where its controls stand at first
    temperature: float = at_least(SampleConfig.temperature, 0.0, 1e30)
    top_k: int = at_least(0, 0)  # likewise; 0: all tokens
    top_p: float = within(1.0, 1e-6, 1.0)  # likewise
    trust: bool = False  # read what the settings of a run from elsewhere name
    overrides: list[str] = field(default_factory=list)  # the settings of a model without a run


@dataclass
class CheckConfig(Settings):
    """python -m lm.check: can this model, or this run, be trusted?

    model=NAME and other settings of lm.train check a model, run=DIR a training run. Exit code 1 if
    it cannot.
    """

    run: str = ""  # a run directory, for the training doctor
    checkpoint: str = "last"  # what training ended with; best, or a step
    steps: int = at_least(600, 1)  # updates of the training on the grammar corpus
    grammar: bool = True  # do that training: the only slow part
    device: str = one_of("auto", "cpu", "cuda", "mps")  # auto: a GPU if there is one
    overrides: list[str] = field(default_factory=list)  # the settings of the model to check


@dataclass
class TransferConfig(Settings):
    """python -m lm.check transfer: do settings carry over from a small model to a large one?

    Other words are settings of lm.train. Exit code 1 if they do not.
    """

    widths: str = "64,128,256,512,1024"  # n_embd of the models; the first is the base
    depths: str = "2,4,8,16"  # n_layer of the models; likewise
    heads: str = one_of("grow", "fixed")  # in a wider model: more of them, or wider ones
    steps: int = within(10, 1, 1000)  # on one batch
    # initialisations whose sizes are averaged, of the narrowest model; of wider ones fewer
    seeds: int = within(3, 1, 64)
    out: str = setting("transfer.svg", path=True)  # the picture: .svg or .png
    overrides: list[str] = field(default_factory=list)  # the settings of the model


@dataclass
class ReportConfig(Settings):
    """python -m lm.report [RUN_OR_SWEEP ...]: look at runs, side by side."""

    # directories, latest, or wandb:ENTITY/PROJECT for a project's runs; none: all of outputs/
    runs: list[str] = setting([], path=True)
    by: str = ""  # settings that make an arm, such as model,optimizer.lr; empty: all but the seed
    out: str = setting("outputs/report.html", path=True)  # plots are written beside it
    experiment: str = ""  # fill this folder of experiments/ from the runs of that name
    compare: str = ""  # two run directories A,B: the paired difference in bits per byte
    trust: bool = False  # to compare: read what the settings of a run from elsewhere name
    watch: bool = False  # write the page again and again while runs train


@dataclass
class DashboardConfig(Settings):
    """python -m lm.dashboard: a view of the runs in W&B, with the panels that matter."""

    project: str = ""  # of W&B: PROJECT or ENTITY/PROJECT; empty: the sweep's, or lm
    sweep: str = setting("", path=True)  # its directory, latest, or its group in W&B; empty: all
    baseline: str = ""  # the run to compare with, by id or name; empty: the first complete one
    report: bool = False  # write a report in W&B, too
    experiment: str = ""  # the folder of experiments/ that the report is about


@dataclass
class CompareConfig(Settings):
    """python -m lm.compare: is B better than A? Runs of both, until it is clear.

    Other words are settings of lm.train, for both sides.
    """

    a: str = ""  # the settings of A alone, with blanks between; empty: those of both
    b: str = ""  # the settings of B alone
    pairs: int = within(6, 2, 64)  # at most, each with a seed of its own
    seconds: float = at_least(0.0, 0.0, 1e9)  # after so many no further pair begins; 0: no limit
    out: str = setting("", path=True)  # a folder for the runs; empty: a new one in outputs/compare
    overrides: list[str] = field(default_factory=list)  # the settings of both


@dataclass
class MixConfig(Settings):
    """python -m lm.mix: several runs with one tokenizer as one model, scored.

    The text is the validation split of the runs.
    """

    runs: str = ""  # run directories, A,B,...
    checkpoint: str = "best"  # of each: best, last or a step
    stride: int = at_least(0, 0)  # tokens scored in each window, the others being context; 0: all
    trust: bool = False  # read what the settings of a run from elsewhere name


@dataclass
class ExportConfig(OfRun):
    """python -m lm.export: a trained model, or its tokenizer, for other programs."""

    format: str = one_of("hf", "tokenizers", "tiktoken")  # hf: the model, for transformers
    out: str = setting("", path=True)  # a new folder; empty: export-FORMAT in the run


@dataclass
class PackConfig(Settings):
    """python -m lm.pack: pack the shards of a large text before training.

    Settings of lm.train say which: corpus=shards corpus.path=FOLDER tokenizer.vocab_size=8192.
    Several commands, here or on machines that share the cache, may divide the work; with -m
    hydra/launcher=slurm (or local) starts all N of them.
    """

    first: int = at_least(0, 0)  # number of the first shard to pack, counted from 0
    every: int = at_least(1, 1)  # then each Nth one, so that N commands divide the work
    overrides: list[str] = field(default_factory=list)  # the settings of the run


@dataclass
class SyncConfig(Settings):
    """python -m lm.sync [FOLDER ...]: upload the offline W&B runs of this directory."""

    folders: list[str] = setting([], path=True)  # outputs/wandb/offline-run-DATE_TIME-ID; none: all


@dataclass
class TrainTokenizer(Settings):
    """python -m lm.tokenizer train: learn a tokenizer from files or standard input."""

    path: str = setting("-", path=True)  # a file, folder, glob, or - for standard input
    out: str = setting("tokenizer.json", path=True)  # new or a tokenizer; - is standard output
    name: str = one_of("bpe", "char", "byte")  # the kind
    vocab_size: int = at_least(1024, 1, 1 << 20)  # special tokens and the 256 bytes included
    pattern: str = "gpt4"  # gpt2, gpt4 or a regular expression
    tie_break: str = one_of("first-pair", "greatest-bytes")  # between equally frequent pairs


@dataclass
class EncodeText(Settings):
    """python -m lm.tokenizer encode: text from a file or standard input to ids."""

    tokenizer: str = setting("tokenizer.json", path=True)  # a file, or byte
    path: str = setting("-", path=True)  # the text; - for standard input
    out: str = setting("-", path=True)  # the ids: a new file; - for standard output
    overwrite: bool = False  # replace a file that is there
    format: str = one_of("text", "raw")  # ids in decimal, or uint16 (uint32 above 65,536 ids)
    allow_special: bool = False  # whether <|endoftext|> in the text becomes its id


@dataclass
class DecodeIds(Settings):
    """python -m lm.tokenizer decode: ids from a file or standard input to text."""

    tokenizer: str = setting("tokenizer.json", path=True)  # a file, or byte
    path: str = setting("-", path=True)  # the ids; - for standard input
    out: str = setting("-", path=True)  # the text: a new file; - for standard output
    overwrite: bool = False  # replace a file that is there
    format: str = one_of("text", "raw")  # ids in decimal, or uint16 (uint32 above 65,536 ids)
    errors: str = one_of("replace", "strict", "ignore")  # for ids that form no whole characters


@dataclass
class ShowTokens(Settings):
    """python -m lm.tokenizer show: a text in coloured tokens, its use of the vocabulary."""

    tokenizer: str = setting("tokenizer.json", path=True)  # a file, or byte
    text: str = ""  # empty: what `path` holds
    path: str = setting("-", path=True)  # a file with the text; - for standard input
    max_tokens: int = at_least(500, 0)  # shown in colour


@dataclass
class CompareTokenizers(Settings):
    """python -m lm.tokenizer compare: several tokenizers side by side on one text."""

    tokenizers: str = "tokenizer.json,byte"  # files, or byte, with commas between
    text: str = ""  # empty: what `path` holds
    path: str = setting("-", path=True)  # a file with the text; - for standard input


@dataclass
class CompletionConfig(Settings):
    """python -m lm.completion SHELL: the script for the tab key in bash, zsh or fish."""

    shells: list[str] = setting([])  # bash, zsh or fish


@dataclass
class TunerConfig(Settings):
    """hydra/sweeper=lm: a search with Optuna."""

    group: ClassVar[str] = "hydra.sweeper"
    n_trials: int = at_least(20, 1)  # in all, also after a restart; failed and pruned ones count
    n_jobs: int = at_least(1, 1, 4096)  # trials at a time, for launchers that run several
    sampler: str = one_of("tpe", "random", "grid")  # what draws the settings of a trial
    n_startup: int = at_least(8, 1)  # random trials before tpe begins to learn from them
    seed: int = at_least(0, 0, 2**32 - 1)  # of the sampler
    pruner: str = one_of("none", "median", "hyperband")  # ends trials that fall behind
    warmup: int = at_least(0, 0)  # steps of training before which none is ended
    storage: str = setting("", path=True)  # another file for the journal, which sweeps may share
    params: dict[str, Any] = field(default_factory=dict)  # settings to search, from a file


COMMANDS: dict[str, type[Settings]] = {
    "train": TrainWords,
    "sample": SampleConfig,
    "evaluate": EvaluateConfig,
    "lens": LensConfig,
    "check": CheckConfig,
    "check transfer": TransferConfig,
    "report": ReportConfig,
    "dashboard": DashboardConfig,
    "compare": CompareConfig,
    "mix": MixConfig,
    "export": ExportConfig,
    "pack": PackConfig,
    "sync": SyncConfig,
    "completion": CompletionConfig,
    "tokenizer train": TrainTokenizer,
    "tokenizer encode": EncodeText,
    "tokenizer decode": DecodeIds,
    "tokenizer show": ShowTokens,
    "tokenizer compare": CompareTokenizers,
}
VERBS = list(dict.fromkeys(name.partition(" ")[0] for name in COMMANDS))


def summary(cls: type[Settings]) -> str:
    """What the command does, in one line."""
    return (cls.__doc__ or "").partition("\n")[0].partition(": ")[2]
