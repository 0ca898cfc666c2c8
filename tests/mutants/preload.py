"""Imported once, before mutants are forked: what torch.optim imports at the first step."""

import torch._dynamo  # noqa: F401  (seconds of the processor)
