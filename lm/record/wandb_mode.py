"""Whether W&B is used online, offline or not at all."""

import logging
import os

log = logging.getLogger(__name__)


def wandb_mode(requested: str) -> str:
    """online, offline or off. auto is online with a key at hand, else offline; it never asks."""
    mode = requested
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or "online"
        mode = {"dryrun": "offline", "disabled": "off"}.get(mode, mode)
    if mode != "online":
        return mode
    import wandb

    try:
        has_key = wandb.login(prompt=False, verify=False)
    except Exception:  # a malformed key has its own class in each version
        has_key = False
    if has_key:
        return "online"
    log.info("W&B: no API key here, so offline (wandb login, then make sync, uploads it)")
    return "offline"
