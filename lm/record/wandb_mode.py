"""Whether W&B is used online, offline or not at all."""

import contextlib
import logging
import os

log = logging.getLogger(__name__)
MODES = {  # what WANDB_MODE may hold, in any case of letters
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "off",
    "off": "off",
}
TRUE = ("1", "true", "yes", "on")
LONGEST_TAG = 64  # letters


def requested_mode(mode: str) -> str:
    """online, offline or off: track.mode, or for auto what the environment says, else online.

    Does not load wandb.
    """
    tidy_environment()
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_DISABLED", "").lower() in TRUE:
        return "off"
    return MODES[os.environ.get("WANDB_MODE", "online")]


def tidy_environment() -> None:
    """Put the WANDB_* variables so that wandb can read them: one that it cannot stops every run."""
    for name, text in list(os.environ.items()):
        if name.startswith("WANDB_") and text != text.strip():  # as from a file of Windows
            os.environ[name] = text.strip()
        if name.startswith("WANDB_") and not text.strip():
            del os.environ[name]
    mode = os.environ.get("WANDB_MODE", "online").lower()
    if mode not in MODES:
        log.warning(f"W&B: WANDB_MODE={mode[:40]!a} is not online, offline or disabled: offline")
        mode = "offline"
    if "WANDB_MODE" in os.environ:
        os.environ["WANDB_MODE"] = "disabled" if mode == "off" else mode
    if "WANDB_TAGS" in os.environ:
        words = [word.strip() for word in os.environ["WANDB_TAGS"].split(",")]
        tags = [word for word in dict.fromkeys(words) if 0 < len(word) <= LONGEST_TAG]
        if any(len(word) > LONGEST_TAG for word in words):
            log.warning(f"W&B: WANDB_TAGS has a tag of more than {LONGEST_TAG} letters: left out")
        os.environ["WANDB_TAGS"] = ",".join(tags)
        if not tags:
            del os.environ["WANDB_TAGS"]


def wandb_mode(mode: str) -> str:
    """online, offline or off, as `requested_mode` has it, but online only with an API key.

    Never asks for a key.
    """
    mode = requested_mode(mode)
    if mode != "online":
        return mode
    fault = key_fault()
    if not fault:
        return "online"
    log.info(f"W&B: {fault}, so offline (wandb login, then make sync, uploads it)")
    return "offline"


def key_fault() -> str:
    """Why there is no API key to log in with; "" if there is one."""
    import wandb
    from wandb.errors import AuthenticationError

    _without_telemetry()
    wandb.setup(settings=wandb.Settings(silent=True, mode="online"))  # or it asks who we are
    # With a run here, the user's own or one that a server has kept from its end, it does not look.
    run, wandb.run = wandb.run, None
    try:
        has_key = wandb.login(prompt=False, verify=False)
    except AuthenticationError as error:
        return f"the API key is malformed ({' '.join(str(error).split()).rstrip('.')})"
    finally:
        wandb.run = run
    return "" if has_key else "no API key here"


def _without_telemetry() -> None:
    """Keep W&B's client from reports on itself: at its end a process waits 10 s for each of them
    where the server hangs, and they hold tracebacks with the paths of this machine.
    """
    with contextlib.suppress(ImportError, AttributeError):  # it has no public name
        from wandb.analytics.opentelemetry import opentelemetry_proxy

        opentelemetry_proxy.disable()
