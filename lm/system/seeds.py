"""Seeds of single draws: every draw is a function of (seed, purpose, number).

torch.manual_seed(seed(cfg.seed, "dropout", batch_number))
"""

import hashlib


def seed(run_seed: int, purpose: str, number: int = 0) -> int:
    """The 63-bit seed of one draw, independent by purpose and number: that of a batch, an epoch.

    So no stream is ever shared: evaluation cannot disturb training, and a resumed step repeats
    without any saved state.
    """
    text = f"{run_seed}/{purpose}/{number}"
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
