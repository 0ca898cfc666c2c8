"""Take a trained model elsewhere: to transformers, tokenizers or tiktoken.

    python -m lm.export run=latest format=hf out=my_model
    python -m lm.export run=latest format=tiktoken

What the other side cannot compute exactly is refused, with the reason. The tests load each kind of
folder in the real library.
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("export")

import os
from pathlib import Path

from lm.export import card, files
from lm.launch import cli
from lm.record.run import Run
from lm.settings.commands import ExportConfig
from lm.system import store, streams
from lm.system.streams import print_line


def command(cfg: ExportConfig) -> None:
    """Write the export into a new folder, whole or not at all."""
    run = Run.open(cfg.run)
    out = Path(cfg.out) if cfg.out else run.path / f"export-{cfg.format}"
    if os.path.lexists(out):
        raise ValueError(f"{out} exists already: choose another out=")
    streams.check_output(cfg.out or str(out))
    with store.new_folder(out) as folder:
        files.WRITERS[cfg.format](run, cfg.checkpoint, folder)
        text = card.write(run, cfg.checkpoint, cfg.format, out.name)
        (folder / "README.md").write_text(text, encoding="utf-8")
    names = sorted(path.name for path in out.iterdir())
    names.remove("manifest.json")
    print_line(f"{out}: {', '.join(names)}")


if __name__ == "__main__":
    cli.main(ExportConfig, command)
