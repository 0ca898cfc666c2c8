"""Make the two pictures of README.md in docs/: the lens on a transformer, the report of a sweep.

python experiments/pictures/make.py             # some minutes on two cores; needs chromium
python experiments/pictures/make.py FOLDER      # the runs stay there, and are not made twice
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent.parent.parent / "docs"
WIDTH, SCALE = 1100, 0.8  # of the page in pixels, and how large the picture is beside it
LENS_HEIGHT, REPORT_HEIGHT = 1247, 1440  # to the end of a row, and of the curves
COLOURS = 256  # in a picture: it takes a third of the bytes, and looks the same
PROMPT = "The import statement"
SWEEP = ("model=bigram,gru,transformer", "optimizer.lr=0.01,0.03", "seed=0,1", "train.steps=200")
SWEEP += ("train.batch_size=8", "train.eval_every=50", "train.threads=1", "track=off")
ARM = {"model=transformer", "optimizer.lr=0.03", "seed=0"}


def lm(folder: Path, verb: str, *words: str) -> None:
    """Run a command of the project in a folder of its own."""
    subprocess.run([sys.executable, "-m", f"lm.{verb}", *words], cwd=folder, check=True)


def arm_with(sweep: Path, words: set[str]) -> Path:
    """The directory of the arm that was started with these words."""
    for path in sweep.glob("*/result.json"):
        if words <= set(json.loads(path.read_text(encoding="utf-8"))["overrides"]):
            return path.parent
    sys.exit(f"error: no arm of {sweep} has {' '.join(sorted(words))}")


def photograph(page: Path, picture: Path, height: int) -> None:
    """The top of an HTML page as a PNG file."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("error: chromium is not installed: the pictures are taken with it")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    flags += [f"--window-size={WIDTH},{height}", f"--force-device-scale-factor={SCALE}"]
    flags += [f"--screenshot={picture}", "--virtual-time-budget=3000", page.absolute().as_uri()]
    subprocess.run([browser, *flags], check=True, capture_output=True)
    taken = Image.open(picture).convert("RGB")
    taken.quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


def make(folder: Path) -> None:
    """Both pictures, of runs in this folder; those that are there already are not made again."""
    lm(folder, "train", "-m", *SWEEP, "hydra.sweep.dir=sweep")
    arm = arm_with(folder / "sweep", ARM)
    lm(folder, "lens", f"run={arm.relative_to(folder)}", f"prompt={PROMPT}", "out=lens.html")
    lm(folder, "report", "sweep", "out=report.html")
    photograph(folder / "lens.html", DOCS / "lens.png", LENS_HEIGHT)
    photograph(folder / "report.html", DOCS / "report.png", REPORT_HEIGHT)


def main() -> None:
    if sys.argv[1:]:
        make(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))


if __name__ == "__main__":
    main()
