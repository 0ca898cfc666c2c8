"""Rules between several settings of a run: what one of them allows another.

rules.check_heads(n_embd=128, n_head=4, n_kv_head=0, positions="rope")

A rule takes plain values and raises ConfigError with them, the limit and the way out. The range of
a single setting stands where it is declared.
"""

import math
import re

from lm.system.errors import ConfigError

MOST_TOKENS = 1 << 27  # in a batch, which is in memory at once as 64-bit ids


def check_heads(n_embd: int, n_head: int, n_kv_head: int, positions: str) -> None:
    """The heads of a transformer share its width, and heads of keys are shared evenly."""
    if n_embd % n_head:
        raise ConfigError(f"model.n_embd={n_embd} is not a multiple of model.n_head={n_head}")
    if n_kv_head and n_head % n_kv_head:
        raise ConfigError(f"model.n_head={n_head} is not a multiple of model.n_kv_head={n_kv_head}")
    if positions == "rope" and n_embd // n_head % 2:
        raise ConfigError(
            f"model.positions=rope turns pairs of numbers, but a head has "
            f"n_embd/n_head={n_embd // n_head}, which is odd"
        )


def check_budgets(budgets: list[str]) -> None:
    """A run ends by one budget; each is given as train.KEY=VALUE."""
    if len(budgets) > 1:
        raise ConfigError(f"{' and '.join(budgets)} are set together: choose one budget")


def check_patience(patience: int, eval_every: int) -> None:
    """Evaluations without a better score are counted where there are any."""
    if patience and not eval_every:
        raise ConfigError(
            f"train.patience={patience} counts evaluations: give train.eval_every above 0"
        )


def check_micro_batch(
    micro_batch: int | str, batch_size: int | str, n_proc: int, compile: str
) -> None:
    """A micro-batch is a part of the batch; some sizes are for one process, or not compiled."""
    is_size = isinstance(micro_batch, int) and not isinstance(micro_batch, bool)
    if isinstance(micro_batch, int):
        is_size &= 0 <= micro_batch <= (batch_size if isinstance(batch_size, int) else MOST_TOKENS)
    if micro_batch != "auto" and not is_size:
        raise ConfigError(
            f"train.micro_batch={micro_batch}: give auto or a number from 0 to "
            f"train.batch_size={batch_size}"
        )
    if micro_batch and compile == "graphs":  # one replay overwrites the gradients of the last
        raise ConfigError(
            f"train.compile=graphs is for whole batches, and train.micro_batch={micro_batch}"
        )
    if micro_batch == "auto" and n_proc > 1:
        raise ConfigError(
            f"train.micro_batch=auto is for one process, and train.n_proc={n_proc}: give a number"
        )


def check_sharding(n_proc: int, compile: str) -> None:
    """Of train.shard=true: several processes share the model, which is not compiled."""
    if n_proc == 1:
        raise ConfigError("train.shard=true divides a model over processes: give train.n_proc")
    if compile in ("on", "graphs"):
        raise ConfigError(
            f"train.compile={compile}: a model under train.shard=true is not compiled"
        )


def check_sharded_extras(optimizer: str, histograms: int) -> None:
    """Of train.shard=true: what needs whole matrices is off."""
    if optimizer == "muon":
        raise ConfigError(
            "optimizer=muon turns whole matrices, and train.shard=true divides them by rows: "
            "give optimizer=adamw"
        )
    if histograms:
        raise ConfigError(
            f"track.histograms={histograms} counts whole matrices, and train.shard=true divides "
            "them: give 0"
        )


def check_even_shares(batch_size: int, micro_batch: int | str, n_proc: int) -> None:
    """Each process has as many windows of a batch, and each of its passes, too."""
    size = 1 if micro_batch in (0, "auto") else int(micro_batch)
    if batch_size % (size * n_proc):
        factors = {"train.micro_batch": size, "train.n_proc": n_proc}
        product = " x ".join(f"{key}={n}" for key, n in factors.items() if n > 1)
        raise ConfigError(f"train.batch_size={batch_size} is not a multiple of {product}")


def check_parts(parts: int, n_proc: int) -> None:
    """Parts of a batch are added in pairs, and each process has equally many of them."""
    if parts & (parts - 1):
        raise ConfigError(f"train.parts={parts}: give 1, 2, 4, 8 or another power of two")
    is_power = n_proc & (n_proc - 1) == 0
    if is_power and n_proc > parts:
        raise ConfigError(
            f"train.n_proc={n_proc} are more than train.parts={parts}: give train.parts={n_proc}"
        )
    if not is_power:
        fits = min(parts, 1 << (n_proc.bit_length() - 1))
        raise ConfigError(
            f"train.n_proc={n_proc} cannot share train.parts={parts} evenly: give "
            f"train.n_proc={fits}"
        )


def check_beside_parts(
    parts: int,
    micro_batch: int | str,
    shard: bool,
    compile: str,
    deterministic: bool,
    seconds: float,
) -> None:
    """What keeps a run with train.parts from having the same bits on any number of processes."""
    reasons = {}
    if micro_batch:
        reasons[f"train.micro_batch={micro_batch}"] = "divides a batch, as parts do"
    if shard:
        reasons["train.shard=true"] = "adds gradients in an order of its own"
    if compile == "graphs":
        reasons["train.compile=graphs"] = "writes over the gradients of the part before"
    if not deterministic:
        reasons["train.deterministic=false"] = "allows other bits"
    if seconds:
        reasons[f"train.seconds={seconds:g}"] = "ends no two runs at the same step"
    for word, reason in reasons.items():
        raise ConfigError(f"{word} {reason}: leave it out, or train.parts={parts}")


def check_even_parts(batch_size: int, parts: int) -> None:
    """Each part of a batch has as many windows."""
    if batch_size % parts:
        divides = batch_size & -batch_size  # the largest power of two that does
        fits = f"train.parts={divides} or " if divides > 1 else ""
        raise ConfigError(
            f"train.batch_size={batch_size} is not a multiple of train.parts={parts}: give "
            f"{fits}train.batch_size={math.ceil(batch_size / parts) * parts}"
        )


def check_words(unresolved: list[str], tokens: int | str, budgets: list[str]) -> None:
    """What is `auto` follows from the tokens of a run, which another budget may not tell.

    `unresolved` are the settings without a number, `budgets` what ends the run, train.KEY=VALUE.
    """
    for key in unresolved:
        if key == "train.tokens":
            continue
        if budgets and not tokens:
            raise ConfigError(
                f"{key}=auto follows from the tokens of a run, which {budgets[0]} does not tell: "
                "give train.tokens, such as train.tokens=20x"
            )
        if key == "train.batch_size" and not tokens:
            raise ConfigError(
                "train.batch_size=auto follows from the tokens of a run: give train.tokens, such "
                "as train.tokens=20x"
            )


def check_batch_tokens(batch_size: int, context_len: int) -> None:
    """A batch fits into memory as ids."""
    if batch_size * context_len > MOST_TOKENS:
        raise ConfigError(
            f"train.batch_size={batch_size} windows of model.context_len={context_len} are "
            f"{batch_size * context_len:,} tokens a step: at most {MOST_TOKENS:,}, lower one"
        )


def check_weight_decay(lr: float, weight_decay: float) -> None:
    """A step of the rate `lr` leaves something of the weights."""
    if weight_decay > 1 and lr * weight_decay > 1:  # else the rate is what is out of the ordinary
        raise ConfigError(
            f"optimizer.weight_decay={weight_decay} at a rate of {lr:g} (optimizer.lr times "
            f"model.lr_scale) takes {lr * weight_decay:g} times the weights at each step: at most "
            "1, lower one of them"
        )


def check_paths(paths: object) -> None:
    """corpus.path is a text, or a list of some."""
    found = paths if isinstance(paths, list) else [paths]
    if not found or not all(isinstance(path, str) and path for path in found):
        raise ConfigError(f"corpus.path={paths}: give a file, folder or glob, or a list")


def check_dataset(dataset: str) -> None:
    """corpus.dataset is the name of a set on the Hugging Face hub, and no path."""
    word = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|[.](?![.])){0,94}"
    if not re.fullmatch(f"{word}/{word}", dataset):
        raise ConfigError(
            f"corpus.dataset={dataset[:100]!a}: give OWNER/SET, a data set of the hub"
        )


def check_registry(registry: str) -> None:
    """track.registry is a registry of W&B, and may name a collection in it."""
    if registry and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", registry):
        raise ConfigError(
            f"track.registry={registry[:100]!a}: give a registry of W&B, as NAME or NAME/COLLECTION"
        )


def check_phases(warmup: float, decay: float) -> None:
    """The rate has risen before it falls."""
    if warmup + decay > 1:
        raise ConfigError(
            f"schedule.warmup={warmup} and schedule.decay={decay} are more than the whole run: "
            "their sum must be at most 1"
        )
