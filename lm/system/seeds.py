"""Seeds of single draws: every draw is a function of (seed, purpose, step).

torch.manual_seed(seed(cfg.seed, "dropout", step))
"""

import hashlib


def seed(run_seed: int, purpose: str, step: int = 0) -> int:
    """The 63-bit seed of one draw. Independent by purpose and step, so no stream is ever shared:
    evaluation cannot disturb training, and a resumed step repeats without any saved state."""
    digest = hashlib.sha256(f"{run_seed}/{purpose}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
