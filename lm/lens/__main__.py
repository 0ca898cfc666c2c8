"""See a model at work on one text: bytes -> tokens -> embeddings -> layers -> probabilities.

    python -m lm.lens run=latest prompt="The king said" layer=0 out=king.html
    python -m lm.lens model=transformer model.n_layer=2          # before any training

Prints the short form and writes one HTML page that needs no network. What the page shows is in
page.py, how the model is watched in probe.py, and how it looks in web/.
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("lens")

from pathlib import Path

from lm.launch import cli, compose
from lm.lens import page, terminal
from lm.lens.subject import Subject
from lm.optim import horizon
from lm.settings.commands import LensConfig
from lm.system.errors import ConfigError
from lm.system.streams import check_output, print_line


def command(cfg: LensConfig) -> None:
    """Print the lens of a run, or of an untrained model, and write its page."""
    if cfg.run and cfg.overrides:
        raise ConfigError(
            f"run={cfg.run} has its own settings: leave out {cfg.overrides[0]}, or leave out run="
        )
    if cfg.out:
        check_output(cfg.out)  # before a model is loaded
    if cfg.overrides:
        subject = Subject.untrained(horizon.resolved(compose.compose_run(cfg.overrides)))
    else:
        subject = Subject.of_run(cfg.run or "latest", cfg.checkpoint, cfg.trust)
    out = Path(cfg.out) if cfg.out else subject.home / "lens.html"
    check_output(str(out))
    view = page.look(subject, cfg)
    page.write(view, out)
    terminal.show(view)
    size = out.stat().st_size / 1e6
    print_line()
    print_line(f"the whole of it, to open in a browser: {out} ({size:.2f} MB)")


if __name__ == "__main__":
    cli.main(LensConfig, command)
