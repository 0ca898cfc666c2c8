"""The lens on a terminal: the page's six blocks in short.

terminal.show(page.look(subject, cfg))
"""

from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from lm.lens.views import unpacked

N_SHOWN = 12  # positions across the terminal


def show(view: dict[str, Any], console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)  # in a file nothing needs to be cut
    about = view["about"]
    step = f", step {about['step']:,}" if about["step"] else ""
    console.print(
        Text(f"{about['model']} ({about['name']}{step}), {about['n_params']:,} parameters")
    )
    for title, block in (
        ("1 shapes", shapes(view)),
        ("2 tokens, shaded by the bits spent on them", tokens(view)),
        ("3 embeddings: nearest tokens, by the cosine", embeddings(view)),
        ("4 attention of the last position: where each layer and head looks most", attention(view)),
        (
            "5 prediction: the likeliest next token after each layer",
            prediction(view, console.width),
        ),
        ("6 bits for the text", bigram(view)),
    ):
        console.print(Text(f"\n{title}", style="bold"))
        console.print(block)


def plain_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=True)
    return table


def quoted(token: str) -> str:
    return f"'{token}'"  # control characters are escaped already


def shapes(view: dict[str, Any]) -> Group:
    table = plain_table("step", "what", "shape", ">sizes", ">parameters", ">FLOPs")
    about, found = view["about"], view["shapes"]
    steps = found["steps"]
    n_bytes = sum(token["n"] for token in view["tokens"])
    table.add_row("text", "UTF-8", "bytes", str(n_bytes), "", "")
    table.add_row("ids", about["tokenizer"], "B x T", f"1 x {about['T']}", "", "")
    for i, step in enumerate(steps):
        if step["layer"]:  # as in the first layer
            if steps[i - 1]["layer"] == 0:
                n, flops = f"{found['layer_params']:,}", f"{found['layer_flops']:,}"
                table.add_row(f"{found['n_layer'] - 1} more such", "", "", "", n, flops)
            continue
        letters = " x ".join(a[0] or f"{a[1]}" for a in step["axes"])
        sizes = " x ".join(f"{a[1]:,}" for a in step["axes"])
        last = i == len(steps) - 1
        path = step["path"] or ("logits" if last else next(iter(step["params"]), "(model)"))
        n = f"{step['n_params']:,}" if step["n_params"] else ""
        flops = f"{step['flops']:,}" if step["flops"] else ""
        table.add_row(Text(path), Text(step["kind"]), letters, sizes, n, flops)
    sizes = f"1 x {about['T']} x {about['vocab_size']:,}"
    table.add_row("probabilities", "softmax", "B x T x V", sizes, "", f"{about['flops']:,} in all")
    meanings = (f"{k} {text.partition(':')[0]}" for k, text in found["axes"].items())
    return Group(table, Text(", ".join(meanings), style="dim"))


def tokens(view: dict[str, Any]) -> Group:
    line, known = Text(), [b for b in view["bits"] if b is not None]
    top = max(known, default=1.0) or 1.0
    for token, bits in zip(view["tokens"], view["bits"], strict=True):
        shade = int(200 * (bits or 0) / top)
        piece = token["text"].replace(" ", "\u00b7")
        line.append(piece, style=f"rgb(240,240,240) on rgb({40 + shade},48,64)")
        line.append(f" {token['id']}  ", style="dim")
    n_bytes = sum(token["n"] for token in view["tokens"][1:])
    total = f"{sum(known):.1f} bits for {len(known)} tokens of {n_bytes} bytes"
    per_byte = f", {sum(known) / n_bytes:.3f} bits a byte" if n_bytes else ""
    return Group(line, Text(total + per_byte, style="dim"))


def embeddings(view: dict[str, Any]) -> Table | Text:
    found = view["embeddings"]
    if found is None:
        return Text("this model has no table with a row for each token, or all of it is still zero")
    table = plain_table("", "")
    ids = list(dict.fromkeys(token["id"] for token in view["tokens"]))[-5:]
    for i in ids:
        row = found["ids"].index(i)
        near = zip(found["near"][row], found["cosine"][row], strict=True)
        text = "   ".join(f"{quoted(view['vocab'][j])} {c:.2f}" for j, c in list(near)[:4])
        table.add_row(Text(quoted(view["vocab"][i])), Text(text))
    return table


def attention(view: dict[str, Any]) -> Table | Text:
    found = view["attention"]["layers"]
    if not found:
        return Text(f"{view['about']['class']} has no attention")
    T = view["about"]["T"]
    table = plain_table("", *[f"head {h}" for h in range(min(6, found[0]["H"]))])
    for layer in found:
        maps = unpacked(layer["weights"]).reshape(layer["H"], -1)
        last = maps[:6, -T:] / 255  # (H, T): the last row of the lower triangle
        best = np.argmax(last, axis=1)
        cells = [
            f"{quoted(view['tokens'][k]['text'])} {last[h, k]:.0%}" for h, k in enumerate(best)
        ]
        table.add_row(f"layer {layer['layer']}", *map(Text, cells))
    return table


def prediction(view: dict[str, Any], width: int) -> Group:
    parts: list[Any] = []
    if view["layers"]:
        rows = view["layers"]["rows"][::-1]
        columns = [  # one a position: what each layer would say, and below it what was read
            [quoted(view["vocab"][row["top"][t][0]]) for row in rows] + [quoted(token["text"])]
            for t, token in enumerate(view["tokens"])
        ]
        names = [*(row["path"] for row in rows), "reads"]
        room, shown = width - max(map(len, names)), 0
        while shown < min(len(columns), N_SHOWN):  # as many as fit, the last ones
            room -= max(map(len, columns[-shown - 1])) + 2
            if room < 0:
                break
            shown += 1
        table = plain_table("", *[""] * shown)
        for name, *cells in zip(names, *columns[len(columns) - shown :], strict=True):
            table.add_row(name, *map(Text, cells), style="dim" if name == "reads" else "")
        parts.append(table)
    last, drawn = view["next"][-1], view["sampling"]
    words = [
        f"{quoted(view['vocab'][i])} {p:.1%}"
        for i, p in zip(last["ids"][:6], last["p"], strict=False)
    ]
    text = f"next: {'  '.join(words)}   (entropy {last['entropy']:.2f} bits)"
    draw = f"drawn with seed {drawn['draws'][0]['seed']} at temperature {drawn['temperature']}: "
    return Group(*parts, Text(text), Text(draw + quoted(view["vocab"][drawn["drawn"]])))


def bigram(view: dict[str, Any]) -> Table | Text:
    found = view["bigram"]
    if "missing" in found:
        return Text(f"no counts: {found['missing']}")
    n_bytes = sum(token["n"] for token in view["tokens"][1:])
    table = plain_table("", ">bits", ">bits a byte")
    for name, bits in (
        ("counts of pairs", found["bits"]["counts"]),
        ("neural bigram", found["bits"]["neural"]),
        (view["about"]["model"], view["bits"]),
    ):
        total = sum(b for b in bits if b is not None)
        table.add_row(name, f"{total:.1f}", f"{total / n_bytes:.3f}" if n_bytes else "")
    return table
