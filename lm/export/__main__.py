"""Take a trained model elsewhere: to transformers, tokenizers or tiktoken.

    python -m lm.export run=latest format=hf out=my_model
    python -m lm.export run=latest format=tiktoken

What the other side cannot compute exactly is refused, with the reason. Each folder is loaded back
in the real library by the tests.
"""

if __name__ == "__main__":
    from lm.system import signals

    signals.end_on_ctrl_c()

from pathlib import Path

from lm.export import files
from lm.export.card import ExportConfig, card
from lm.launch import cli
from lm.record.run import Run
from lm.system import store

WRITERS = {
    "hf": files.to_transformers,
    "tokenizers": files.to_tokenizers,
    "tiktoken": files.to_tiktoken,
}


def command(cfg: ExportConfig) -> None:
    run = Run.open(cfg.run)
    out = Path(cfg.out) if cfg.out else run.path / f"export-{cfg.format}"
    if out.exists():
        raise ValueError(f"{out} exists already: choose another out=")
    with store.new_folder(out) as path:
        WRITERS[cfg.format](run, path, cfg.checkpoint)
        (path / "README.md").write_text(card(run, cfg, out.name), encoding="utf-8")
    print(f"{out}: {', '.join(sorted(p.name for p in out.iterdir() if p.name != 'manifest.json'))}")


if __name__ == "__main__":
    cli.main(ExportConfig, command)
