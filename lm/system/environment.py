"""What the environment says of this process, before torch is loaded."""

import os

IMPORTS = "LM_IMPORTS"  # in the environment, as a run may have processes of its own
SWEEP = "LM_SWEEP"  # the directory of the sweep, as its arms may have theirs anywhere


def started_by_torchrun() -> bool:
    """Whether torchrun started this process, and others like it."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch_rank() -> int:
    """Which of torchrun's processes this is; 0 without it."""
    return int(os.environ["RANK"]) if started_by_torchrun() else 0


def imported_modules() -> list[str]:
    """The modules with parts of the user's own that import= of this command has named."""
    return os.environ.get(IMPORTS, "").split()


def import_words() -> str:
    """The words `import=MODULE ` of this command, which find its parts again; nothing without."""
    return "".join(f"import={name} " for name in imported_modules())


def let_threads_yield() -> None:
    """Have PyTorch's threads wait asleep for each other, unless the environment says how they do.

    GNU's OpenMP has them spin, up to 0.1 s at a time: beside another busy process most of a
    processor's time goes into waiting for a thread that the spinning ones keep from running. 5000
    rounds outlast the gap between two operations, where 1000 do not, and cost little beside others:
    experiments/benchmarks/training/waiting.py measures it.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "5000"
