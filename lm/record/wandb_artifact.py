"""What a run leaves in W&B as artifacts, and a model kept there, opened as a run directory.

    wandb_artifact.upload(wandb_run, out, best_step=500, everything=False)
    path = wandb_artifact.fetch("wandb:me/lm/model-a1b2c3d4:best")

The latter is what `run=wandb:ENTITY/PROJECT/ARTIFACT:ALIAS` opens.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lm.config import RESOLVED
from lm.record import checkpoint, wandb_answer, wandb_registry
from lm.record.schemas import CodeRecord, DataRecord, Summary, read_part
from lm.system import files, store

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)
NAME = re.compile(r"wandb:([\w.-]+/[\w.-]+/[\w.-]+:[\w.-]+)")
RUN_FILES = (RESOLVED, "tokenizer.json")
CHECKPOINT_FILES = ("model.safetensors", "optimizer.safetensors", "state.json", store.MANIFEST)


def upload(
    run: "wandb.Run", out: Path, best_step: int, everything: bool, registry: str = ""
) -> None:
    """Log the tokenizer and the best model, each with the names of what it was made from.

    With `everything` the corpus and the token files are logged too. With `registry`, as
    track.registry has it, the model is linked there.
    """
    data = files.read_record(out / DataRecord.file, DataRecord)
    token_files = Path(data.folder)
    corpus = f"corpus-{data.tokens.corpus[:12]}"
    tokenizer = f"tokenizer-{data.tokens.tokenizer[:12]}"
    tokens = f"tokens-{token_files.name.removeprefix('tokens-')}"
    checkpoint_files = list(checkpoint.folder(out, best_step).glob("*"))
    copies = Path(run.dir)  # of the run's files, without the paths of this machine
    run_files = [out / "tokenizer.json", copies / RESOLVED]
    about = _about_model(out, data, best_step)

    if everything:
        _log(run, corpus, "corpus", [copies / DataRecord.file], [])
    _log(run, tokenizer, "tokenizer", [out / "tokenizer.json"], [corpus])
    if everything:
        _log(run, tokens, "tokens", sorted(token_files.glob("*")), [corpus, tokenizer])
    model_files = [*checkpoint_files, *run_files]
    model = _log(run, f"model-{run.id}", "model", model_files, [tokenizer, tokens], about)
    if registry and run.offline:
        log.warning(f"track.registry={registry}: the run is offline, so its model is not linked")
    elif registry:
        target = wandb_registry.target(registry, run.project)
        run.link_artifact(model, target)
        log.info(f"W&B: the model is linked to {target}")


def _about_model(out: Path, data: DataRecord, best_step: int) -> dict[str, object]:
    """What tells a model from others without a download: its score, training, text and code."""
    summary = files.read_record(out / Summary.file, Summary)
    code = read_part(out, CodeRecord)
    weights = checkpoint.read_record(checkpoint.folder(out, best_step))
    return {
        "val/bpb": summary.best_val_bpb,
        "step": best_step,
        "tokens": weights.state.tokens,  # that it was trained on
        "n_params": summary.n_params,
        "corpus": data.corpus.source.get("corpus"),
        "corpus_fingerprint": data.tokens.corpus,
        "git_commit": code.git_commit if code else None,
        "git_diff_sha256": code.git_diff_sha256 if code else None,
    }


def _log(
    run: "wandb.Run",
    name: str,
    kind: str,
    paths: Sequence[Path],
    made_from: list[str],
    about: Mapping[str, object] | None = None,
) -> "wandb.Artifact":
    import wandb

    artifact = wandb.Artifact(name, type=kind, metadata={"made_from": made_from, **(about or {})})
    for path in filter(Path.is_file, paths):
        # Not copied: an offline run's files must stay where they are until it is synced.
        artifact.add_file(str(path.absolute()), policy="immutable", skip_cache=True)
    if kind == "model":
        run.log_artifact(artifact, aliases=["latest", "best"])
    else:
        # An input of the run, for W&B's graph. use_artifact does the same, but it refuses
        # offline runs, and waits without a limit for a server that hangs.
        run._log_artifact(artifact, aliases=["latest"], is_user_created=True, use_after_commit=True)
    return artifact


def fetch(name: str) -> Path:
    """The run directory of a model that a run logged to W&B, downloaded once into the cache.

    Its files are a stranger's: only those that a run has are taken, the weights must be those of
    their manifest, and settings and tokenizer are checked where they are read. Raises ValueError,
    or SilentServerError.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"run={name}: write wandb:ENTITY/PROJECT/ARTIFACT:ALIAS")
    path = match.group(1)
    return wandb_answer.ask(f"run={name}", lambda: _download(path))


def _download(path: str) -> Path:
    import wandb

    artifact = wandb.Api(timeout=wandb_answer.TIMEOUT).artifact(path, type="model")
    entries = artifact.manifest.entries
    for name in (*RUN_FILES, *CHECKPOINT_FILES):
        if name not in entries or entries[name].ref:
            raise ValueError(f"it has no file {name}, so lm.train did not make it")
    fingerprint = files.fingerprint(path.partition(":")[0], artifact.digest)
    home = files.cache_dir() / f"wandb-{fingerprint}"
    if home.is_dir():
        return home
    with store.temporary_folder(home) as tmp:
        weights = tmp / "weights"
        weights.mkdir()
        for name in RUN_FILES:
            artifact.get_entry(name).download(root=str(tmp), skip_cache=True)
        for name in CHECKPOINT_FILES:
            artifact.get_entry(name).download(root=str(weights), skip_cache=True)
        store.verify(weights)
        target = checkpoint.folder(tmp, checkpoint.read_record(weights).state.step)
        target.parent.mkdir()
        weights.rename(target)
        files.sync_tree(tmp)
        try:
            files.rename(tmp, home)
        except OSError:
            if not home.is_dir():  # which another process may have made by now
                raise
    return home
