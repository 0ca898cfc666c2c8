"""Places in W&B: of a run, of a model in an organization's registry, and the command for a view.

wandb_registry.place("https://wandb.ai/me/lm/runs/a1b2c3d4")     # ("me", "lm", "a1b2c3d4")
wandb_registry.target("models", "lm")                            # "wandb-registry-models/lm"
"""

from urllib.parse import urlsplit

from lm.config import TrackConfig
from lm.system.text import shell_word


def place(url: str) -> tuple[str, str, str]:
    """The entity, project and id of the run at an address of W&B."""
    entity, project, _, uid = urlsplit(url).path.split("/")[-4:]
    return entity, project, uid


def target(registry: str, project: str) -> str:
    """The collection that track.registry means: NAME/COLLECTION, or that of the project's name."""
    name, _, collection = registry.partition("/")
    return f"wandb-registry-{name}/{collection or project}"


def view_command(url: str, sweep: str = "") -> str:
    """What to type for a view of the run's project, or of a sweep, in W&B."""
    entity, project, _ = place(url)
    words = ["python -m lm.dashboard"]
    if sweep:
        words.append(shell_word(f"sweep={sweep}"))
    elif project != TrackConfig().project:
        words.append(shell_word(f"project={entity}/{project}"))
    return f"{' '.join(words)} makes a view of {'its' if sweep else 'all'} runs there"
