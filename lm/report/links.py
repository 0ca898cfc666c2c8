"""What else there is to see of a run: its lens, what the doctor found, its page in W&B.

links.of_run(run, Path("outputs"))    # {"lens": "runs/d/t/lens.html", "doctor": [...], ...}
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from lm.record.schemas import DoctorFinding, WandbRecord
from lm.report.records import Record
from lm.system import files
from lm.system.errors import DamagedError

LENS = "lens.html"
DOCTOR = "doctor.json"
LOOK = ("look", "failed")  # verdicts that ask for something


def of_run(run: Record, beside: Path) -> dict[str, Any]:
    """Its lens, as an address from the folder `beside`, the findings and the address in W&B.

    None, or no finding, where a file is not there or is damaged: a report is made without it. Nor
    has it the address of a lens that would name folders outside of the current one.
    """
    return {"lens": _lens(run, beside), "doctor": _findings(run), "wandb": _wandb(run)}


def _lens(run: Record, beside: Path) -> str | None:
    path = run.path / LENS
    if path.is_symlink() or not path.is_file():
        return None
    # The folder may be a link: addresses of a page are read from where it is.
    address = os.path.relpath(path.resolve(), beside.resolve())
    is_near = len(Path(files.public(str(path))).parts) > 1
    return quote(address) if is_near or not address.startswith("..") else None


def _findings(run: Record) -> list[dict[str, Any]]:
    """The findings that ask for something; none where no doctor looked at the run."""
    path = run.path / DOCTOR
    try:
        found = files.read_record(path, list[DoctorFinding])
    except (DamagedError, OSError):
        return []
    return [msgspec.to_builtins(finding) for finding in found if finding.verdict in LOOK]


def _wandb(run: Record) -> str | None:
    """The address, which a stranger may have written: no script may be behind it."""
    try:
        record = files.read_record(run.path / WandbRecord.file, WandbRecord)
    except (DamagedError, OSError):
        return None
    url = record.url or ""
    return url if url.startswith(("https://", "http://")) else None
