"""Make the two pictures of README.md in docs/: the lens on a transformer, the report of a sweep.

python experiments/pictures/make.py       # some minutes on two cores; needs chromium
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"
WIDTH = 1100  # pixels
LENS_HEIGHT, REPORT_HEIGHT = 760, 900
PROMPT = "The import statement"
SWEEP = ("model=bigram,gru,transformer", "train.steps=200", "train.batch_size=8")
SWEEP += ("train.eval_every=25", "train.threads=1", "track=off")


def lm(folder: Path, verb: str, *words: str) -> None:
    """Run a command of the project in a folder of its own."""
    subprocess.run([sys.executable, "-m", f"lm.{verb}", *words], cwd=folder, check=True)


def arm_with(sweep: Path, word: str) -> Path:
    """The directory of the arm that was started with this word."""
    for path in sweep.glob("*/result.json"):
        if word in json.loads(path.read_text(encoding="utf-8"))["overrides"]:
            return path.parent
    sys.exit(f"error: no arm of {sweep} has {word}")


def photograph(page: Path, picture: Path, height: int) -> None:
    """The top of an HTML page as a PNG file."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("error: chromium is not installed: the pictures are taken with it")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    flags += [f"--window-size={WIDTH},{height}", f"--screenshot={picture}"]
    flags += ["--virtual-time-budget=3000", page.absolute().as_uri()]
    subprocess.run([browser, *flags], check=True, capture_output=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lm(folder, "train", "-m", *SWEEP, "hydra.sweep.dir=sweep")
        arm = arm_with(folder / "sweep", "model=transformer")
        lm(folder, "lens", f"run={arm.relative_to(folder)}", f"prompt={PROMPT}", "out=lens.html")
        lm(folder, "report", "sweep", "out=report.html")
        photograph(folder / "lens.html", DOCS / "lens.png", LENS_HEIGHT)
        photograph(folder / "report.html", DOCS / "report.png", REPORT_HEIGHT)


if __name__ == "__main__":
    main()
