"""The base of a model, for model.base_width and model.base_depth: in which settings it differs.

base_model.sizes(cfg.model, ("n_embd", "n_mlp"), "n_layer")      # {"n_embd": 64, ...}

What is done with it: lm/models/parametrization.py.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import fields

from lm.settings.declare import Part
from lm.system.errors import ConfigError


def sizes(model: Part, width_keys: Sequence[str], depth_key: str) -> dict[str, int]:
    """The settings in which the base of a model's settings differs.

    `width_keys` are the settings that grow with base_width, which is the first of them in the
    base. Raises ConfigError where no model can be the base.
    """
    own = {f.name for f in fields(model)}
    base = {key: getattr(model, key) for key in ("base_width", "base_depth")}
    for (key, value), name in zip(base.items(), (width_keys[0], depth_key), strict=True):
        if value and name not in own:
            raise ConfigError(
                f"model.{key}={value}: model={model.name} has no {name}, so nothing is to be "
                f"carried over; give model.{key}=0"
            )
    found = {"base_width": 0, "base_depth": 0}
    if base["base_depth"]:
        found[depth_key] = base["base_depth"]
    if base["base_width"]:
        ratio, rest = divmod(getattr(model, width_keys[0]), base["base_width"])
        for name in width_keys:
            value = getattr(model, name, 0)
            if rest or value % ratio:
                raise ConfigError(
                    f"model.base_width={base['base_width']} does not divide model.{name}={value}: "
                    "every width is a whole multiple of the base's"
                )
            if name in own:
                found[name] = value // ratio
    return found


def heads(n_head: int, n_kv_head: int, base_n_head: int, base_width: int) -> dict[str, int]:
    """The numbers of heads in which the base differs; ConfigError where it can have none such."""
    if not base_n_head:
        return {}
    if not base_width:
        raise ConfigError(
            f"model.base_n_head={base_n_head} belongs to model.base_width, which is 0"
        )
    n_shared, rest = divmod(n_kv_head * base_n_head, n_head)
    if rest:
        raise ConfigError(
            f"model.base_n_head={base_n_head} would have {n_kv_head} of {n_head} heads of keys: "
            "model.n_kv_head times it is no multiple of model.n_head"
        )
    return {"n_head": base_n_head, "n_kv_head": n_shared}


@contextlib.contextmanager
def naming(base_width: int) -> Iterator[None]:
    """What is wrong with the settings of the base says that they are the base's."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(
            f"model.base_width={base_width}: of the base, {error}; model.base_n_head is "
            "its number of heads"
        ) from None
