"""Short names of settings: what sets one arm apart from the others.

    keys = labels.varied([["model=gru", "seed=0"], ["model=gru", "seed=1"]])     # ["seed"]
    labels.label(["model=gru", "seed=1"], keys)                                  # "seed=1"
    labels.run_name(["optimizer.lr=0.003", "seed=1"], "gru")            # "gru lr=0.003 seed=1"

The one place where they are shortened: for the lines of a sweep, for the names of runs in W&B, and
for lm/report/labels.py.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from lm import config
from lm.system import files


def settings(overrides: Iterable[str]) -> dict[str, str]:
    """The keys and values of a command line, without those of Hydra."""
    found = {}
    for word in overrides:
        key, _, value = word.partition("=")
        key = key.lstrip("+")
        if key.partition(".")[0].partition("/")[0] != "hydra":
            found[key] = value
    return found


def decides(key: str) -> bool:
    """Whether a key of a command line decides the score; the seed is left out, and what only names
    a file of settings."""
    group = key.partition(".")[0].partition("/")[0]
    return group not in ("experiment", "seed") and config.affects(key) != "nothing"


def words(overrides: Sequence[str], decides: Callable[[str], bool] = decides) -> dict[str, str]:
    """The keys and values of a command line that decide the score, without the seed."""
    return {key: value for key, value in settings(overrides).items() if decides(key)}


def varied(arms: Sequence[Sequence[str]]) -> list[str]:
    """The keys in which the words of these arms differ, in their order, the seed last."""
    rows = [settings(overrides) for overrides in arms]
    keys = dict.fromkeys(key for row in rows for key in row)
    found = [key for key in keys if len({row.get(key) for row in rows}) > 1]
    return sorted(found, key=lambda key: key == "seed")


def run_name(overrides: Sequence[str], model: str, keys: Iterable[str] | None = None) -> str:
    """What a run is called in W&B: its model, and what else was chosen for it.

    With `keys` it is an arm of a sweep, and called by its values of those.
    """
    typed = settings(overrides)
    if keys is None:
        keys = [key for key in words(overrides) if not config.keeps_result(key)]
        keys.append("seed")
    chosen = {key: typed[key] for key in keys if key in typed}
    first = chosen.pop("model", None) or chosen.pop("arm", None) or model
    return " ".join([short("arm", first), *filter(None, [values(chosen, chosen)])])


def label(overrides: Iterable[str], keys: Iterable[str]) -> str:
    """The values of these keys among the words of an arm."""
    return values(settings(overrides), keys)


def values(row: Mapping[str, object], keys: Iterable[str]) -> str:
    """The values of those of the keys that the row has, in short."""
    return " ".join(short(key, row[key]) for key in keys if key in row)


def short(key: str, value: object) -> str:
    """model.norm=rmsnorm as rmsnorm, optimizer.lr=0.01 as lr=0.01, arm=004_x/muon as muon."""
    prefix = f"{key.rpartition('.')[2]}=" if "." in key or key == "seed" else ""
    if isinstance(value, (bool, int)):
        return f"{prefix}{value}"
    text = str(value)
    if config.is_path(key):
        paths = value if isinstance(value, list) else text.strip("[]").split(",")
        text = ",".join(files.public(str(path).strip(" '\"")) for path in paths)
    try:
        number = float(text)
    except ValueError:
        number = None
    if number is not None:
        if number.is_integer() and abs(number) < 1e12:  # of 800_000 every digit is wanted
            return f"{prefix}{int(number)}"
        return f"{prefix}{number:.4g}"
    if key == "arm":
        return text.rpartition("/")[2]
    says_it = text.isidentifier() and text.lower() not in ("true", "false", "none", "null")
    return text if says_it else f"{prefix}{text}"
