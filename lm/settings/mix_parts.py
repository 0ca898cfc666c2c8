"""The settings of corpus=mix: the corpus of each part, and its weight.

mix_parts.load(CorpusConfig, {"plays": {"name": "shakespeare"}}, defaults={"val_fraction": 0.1})
"""

import math
import re
from collections.abc import Mapping
from typing import TypeVar

from lm.settings import reading
from lm.settings.declare import Settings
from lm.system.errors import ConfigError

S = TypeVar("S", bound=Settings)


def load(
    base: type[S], parts: Mapping[str, object], defaults: Mapping[str, object]
) -> dict[str, S]:
    """The checked corpus of each part; what it does not say itself it has from `defaults`.

    `base` is the class of which every corpus is a kind. Raises ConfigError with the part's keys.
    """
    if not parts:
        raise ConfigError(
            "corpus.parts is empty: give corpus.parts.NAME.path=FILE corpus.weights.NAME=SHARE "
            "for each source"
        )
    return {name: _load_part(base, name, values, defaults) for name, values in parts.items()}


def _load_part(base: type[S], name: str, values: object, defaults: Mapping[str, object]) -> S:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", str(name)):
        raise ConfigError(
            f"corpus.parts.{str(name)[:60]!a}: a part's name has 1 to 40 of A-Z, a-z, 0-9, _, -"
        )
    if not isinstance(values, Mapping) or not {"name", "path"} & set(values):
        raise ConfigError(
            f"corpus.parts.{name}={values or ''}: give corpus.parts.{name}.path=FILE, or the "
            f"name of a corpus, as corpus.parts.{name}.name=shakespeare"
        )
    values = {"name": "files", **defaults, **values}
    if values["name"] == "mix":
        raise ConfigError(f"corpus.parts.{name}.name=mix: a part is one corpus, no mix")
    if values["name"] == "shards":  # whose first part alone would be read
        raise ConfigError(
            f"corpus.parts.{name}.name=shards: a part is packed before training begins, as files"
        )
    if values.get("near_duplicates") == "together":
        raise ConfigError(
            f"corpus.parts.{name}.near_duplicates=together: in a mix choose drop or keep"
        )
    try:
        part = reading.load_group(base, values, f"corpus.parts.{name}")
    except ConfigError as error:
        raise ConfigError(of_part(name, error)) from None
    assert isinstance(part, base)
    return part


def check_weights(weights: Mapping[str, float], parts: Mapping[str, object]) -> None:
    """Raise ConfigError unless each part has a weight from 0 to 1, and they sum to 1."""
    for name in parts.keys() - weights.keys():
        raise ConfigError(f"corpus.parts.{name} has no weight: give corpus.weights.{name}=SHARE")
    for name, weight in weights.items():
        if name not in parts:
            raise ConfigError(
                f"corpus.weights.{name}={weight} has no part: the parts are {', '.join(parts)}"
            )
        if not 0 <= weight <= 1:
            raise ConfigError(f"corpus.weights.{name}={weight}: must be from 0 to 1")
    total = math.fsum(weights.values())
    if abs(total - 1) > 1e-6:
        given = ", ".join(f"{name}={weight:g}" for name, weight in weights.items())
        raise ConfigError(f"corpus.weights {given} sum to {total:.9g}: they must sum to 1")


def of_part(name: str, error: Exception) -> str:
    """What is wrong with the corpus that is this part of a mix, with the keys that it has there."""
    key = f"corpus.parts.{name}"
    names = "path|dataset|config|split|revision|field|errors|val_fraction|near_duplicates"
    names += "|n_documents|seed"
    text = re.sub(rf"(?<![\w./-])corpus\.(?=({names})\b)", f"{key}.", str(error))
    return text if key in text else f"{key}: {text}"
