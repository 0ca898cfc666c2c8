"""lm: from raw text to a tuned language model that a person can see through, track and sweep.

from lm import Run, notebook
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lm.record.run import Run as Run

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`Run`, which loads torch, once somebody asks for it: `import lm` loads nothing."""
    if name != "Run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lm.record.run import Run

    return Run
