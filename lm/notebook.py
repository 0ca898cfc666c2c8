"""Train, look and compare from Python: for a notebook, a script or a prompt.

from lm import Run, notebook

run = notebook.train("model=gru", "train.steps=200")   # or Run.open("latest")
notebook.lens(run, "The import statement")             # a page: shown in a notebook,
notebook.report().save("report.html")                  # or saved to be opened in a browser
cfg = notebook.settings("model=gru")                   # for functions, as pipeline.prepare(cfg)
"""

import html
import secrets
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from lm.config import Config
from lm.launch import compose, directory, jobs, logs, resume
from lm.lens import page as lens_page
from lm.lens.subject import Subject
from lm.record.run import Run
from lm.report import board
from lm.report import page as report_page
from lm.settings.commands import LensConfig
from lm.system import files, signals
from lm.system.errors import ConfigError
from lm.train import run_job

HEIGHT = 800  # pixels of a page in a notebook
OF_THE_COMMAND = ("-", "hydra", "experiment=", "import=")  # words that only a command can follow


@dataclass(repr=False)
class Page:
    """An HTML page that needs no other file: the value of a cell, or saved."""

    html: str
    title: str  # in its head, too

    def __repr__(self) -> str:
        return f"<Page {self.title}, {len(self.html.encode()) / 1e6:.2f} MB>"

    def _repr_html_(self) -> str:
        """The page in a frame of its own, whose scripts reach nothing of the notebook."""
        return (
            f'<iframe sandbox="allow-scripts" style="width: 100%; height: {HEIGHT}px; border: 0" '
            f'title="{self.title}" srcdoc="{html.escape(self.html)}"></iframe>'
        )

    def save(self, path: str | Path) -> Path:
        """Write the page to a file; ConfigError where another file of that name is."""
        out = Path(files.expanded(str(path)))
        files.check_own(out, f"<title>{self.title}</title>")
        files.make_folder(out.parent)
        files.atomic_write(out, self.html)
        return out


def train(*words: str, out: str | Path = "") -> Run:
    """Do what `python -m lm.train WORDS` does, in this process, and return the run.

    `out` is its directory; empty: a new one under outputs/runs. With the word `resume=RUN` that
    run goes on. Ctrl-C saves the exact step. PyTorch's threads and determinism are then set for
    the whole process. Raises ConfigError for a mistake in the words.
    """
    given = list(words)
    for word in given:
        if word.startswith(OF_THE_COMMAND):
            raise ConfigError(f"{word} is for the command: python -m lm.train")
    with logs.shown():
        job = _job(given, out)
        if job.cfg.train.n_proc > 1:
            raise ConfigError(
                f"train.n_proc={job.cfg.train.n_proc}: only python -m lm.train starts several "
                "processes"
            )
        directory.check(job.out)
        directory.make(job.out)
        try:
            run_job(job)
        except signals.Stopped as stop:
            if stop.number != signal.SIGINT:
                raise
            raise KeyboardInterrupt from None
    return Run.open(str(job.out))


def settings(*words: str) -> Config:
    """The settings of `python -m lm.train WORDS`: what the functions of lm take as `cfg`.

    `pipeline.prepare(cfg)` gives tokenizer and ids, `cfg.model.build(vocab_size)` a new model.
    Raises ConfigError for a mistake in the words.
    """
    return compose.compose_run(list(words))


def _job(words: list[str], out: str | Path) -> jobs.Job:
    if resume.is_resumed(words):
        if out:
            raise ConfigError(f"out={out}: a run that goes on stays in its directory")
        return resume.job(words)
    moment = time.strftime("%Y-%m-%d/%H-%M-%S")
    folder = out or f"outputs/runs/{moment}-{secrets.token_hex(2)}"
    return jobs.Job(compose.compose_run(words), Path(files.expanded(str(folder))), words)


def lens(
    run: Run, prompt: str | None = None, *, layer: int = LensConfig.layer, which: str = "best"
) -> Page:
    """The page of `python -m lm.lens`: the run at work on the prompt, bytes to probabilities.

    Without a prompt it is an example that suits the text. Raises ConfigError for one that is empty,
    too long or has unknown tokens, and for a layer that is not there.
    """
    subject = Subject.of_run(str(run.path), which)
    view = lens_page.look(subject, LensConfig(prompt=prompt, layer=layer))
    return Page(lens_page.html(view), "lens")


def report(*roots: str | Path, by: str = "") -> Page:
    """The page of `python -m lm.report`: the runs at or below `roots`, or all of outputs/.

    `by` names settings that make an arm, such as "model,optimizer.lr"; empty: all but the seed.
    The links of the page work where it is saved in the current directory.
    """
    folders = [Path(root) for root in roots] or [Path("outputs")]
    _, rankings = report_page.ranked(by, folders)
    return Page(report_page.html(board.view(rankings), folders), "lm report")
