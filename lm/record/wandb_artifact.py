"""A model kept in W&B, as a run directory: what `run=wandb:ENTITY/PROJECT/ARTIFACT:ALIAS` opens.

path = artifact.fetch("wandb:me/lm/model-a1b2c3d4:best")
"""

import os
import re
import shutil
from pathlib import Path

from lm.config import RESOLVED
from lm.record import checkpoint, wandb_mirror
from lm.system import files, store

PREFIX = "wandb:"
FORM = re.compile(r"wandb:([\w.-]+/[\w.-]+/[\w.-]+:[\w.-]+)")
RUN = (RESOLVED, "tokenizer.json")
CHECKPOINT = ("model.safetensors", "optimizer.safetensors", "state.json", store.MANIFEST)
TIMEOUT = 20  # seconds until a server that does not answer is given up


def fetch(name: str) -> Path:
    """The run directory of a model that a run logged to W&B, downloaded once into the cache.

    Its files are a stranger's: only those that a run has are taken, the weights must be those of
    their manifest, and settings and tokenizer are checked where they are read. Raises ValueError.
    """
    form = FORM.fullmatch(name)
    if form is None:
        raise ValueError(f"run={name}: write wandb:ENTITY/PROJECT/ARTIFACT:ALIAS")
    if wandb_mirror.wandb_mode("online") != "online":
        raise ValueError(f"run={name} is asked of W&B: wandb login, or set WANDB_API_KEY")
    try:
        return _download(form.group(1))
    except Exception as error:  # the client raises a dozen unrelated classes
        text = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"run={name}: {text}") from None


def _download(path: str) -> Path:
    import wandb

    found = wandb.Api(timeout=TIMEOUT).artifact(path, type="model")
    entries = found.manifest.entries
    if lacking := [n for n in (*RUN, *CHECKPOINT) if n not in entries or entries[n].ref]:
        raise ValueError(f"it has no file {lacking[0]}, so lm.train did not make it")
    home = files.cache_dir() / f"wandb-{files.fingerprint(path.partition(':')[0], found.digest)}"
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    tmp = files.temporary(home)
    try:
        (tmp / "weights").mkdir(parents=True)
        for name in (*RUN, *CHECKPOINT):
            below = tmp / "weights" if name in CHECKPOINT else tmp
            found.get_entry(name).download(root=str(below), skip_cache=True)
        store.verify(tmp / "weights")
        step = checkpoint.read_record(tmp / "weights").state.step
        checkpoint.folder(tmp, step).parent.mkdir()
        (tmp / "weights").rename(checkpoint.folder(tmp, step))
        try:
            os.rename(tmp, home)
        except OSError:
            if not home.is_dir():  # which another process may have made by now
                raise
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return home
