"""The lens on a terminal: the page's six blocks in short.

terminal.show(page.look(subject, cfg))
"""

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lm.lens.views import Values, View, unpacked
from lm.system.console import Console

N_SHOWN = 12  # positions across the terminal
N_HEADS = 6
N_EMBEDDINGS = 5  # tokens whose neighbours are listed
N_NEAR = 4
N_NEXT = 6


def show(view: View, console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)  # in a file nothing needs to be cut
    about = view["about"]
    step = f", step {about['step']:,}" if about["step"] else ""
    title = f"{about['model']} ({about['name']}{step}), {about['n_params']:,} parameters"
    console.print(Text(title))
    blocks: list[tuple[str, RenderableType]] = [
        ("1 shapes", shapes(view)),
        ("2 tokens, shaded by the bits spent on them", tokens(view, console.width)),
        ("3 embeddings: nearest tokens, by the cosine", embeddings(view, console.width)),
        (
            "4 attention of the last position: where each layer and head looks most",
            attention(view, console.width),
        ),
        (
            "5 prediction: the likeliest next token after each layer",
            prediction(view, console.width),
        ),
        ("6 bits for the text", bigram(view)),
    ]
    for title, block in blocks:
        console.print(Text(f"\n{title}", style="bold"))
        console.print(block)


def plain_table(*columns: str) -> Table:
    """A table without lines; a title that begins with > stands on the right."""
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for column in columns:
        if column.startswith(">"):
            table.add_column(column.removeprefix(">"), justify="right", no_wrap=True)
        else:
            table.add_column(column, no_wrap=True)
    return table


def fitting(columns: Sequence[Sequence[str]], width: int) -> int:
    """How many of the columns of cells fit side by side into so many places of a terminal."""
    for n, column in enumerate(columns):
        width -= max(cell_len(cell) for cell in column) + 2
        if width < 0:
            return n
    return len(columns)


def quoted(token: str) -> str:
    return f"'{token}'"  # control characters are escaped already


# --------------------------------------------------------------------------------- 1 shapes


def shapes(view: View) -> Group:
    """A row for each step; of the layers only the first is written out."""
    about, found = view["about"], view["shapes"]
    table = plain_table("step", "what", "shape", ">sizes", ">params", ">FLOPs")
    for column in table.columns[:3]:
        column.no_wrap = False  # on a narrow terminal names turn to a second line, no digit is cut
    n_bytes = sum(token["n"] for token in view["tokens"])
    table.add_row("text", "UTF-8", "bytes", str(n_bytes), "", "")
    table.add_row("ids", about["tokenizer"], "B T", f"1 {about['T']}", "", "")
    previous_layer = None
    for step in found["steps"]:
        if step["layer"] and previous_layer == 0:
            _add_other_layers(table, found)
        if not step["layer"]:
            _add_step(table, step, is_last=step is found["steps"][-1])
        previous_layer = step["layer"]
    sizes = f"1 {about['T']} {about['vocab_size']:,}"
    table.add_row("probabilities", "softmax", "B T V", sizes, "", "")
    table.add_row("in all", "", "", "", f"{about['n_params']:,}", f"{about['flops']:,}")
    meanings = [f"{letter} {text.partition(':')[0]}" for letter, text in found["axes"].items()]
    return Group(table, Text(", ".join(meanings), style="dim"))


def _add_other_layers(table: Table, found: Values) -> None:
    n_others = found["n_layer"] - 1
    n_params = f"{found['layer_params']:,}"
    flops = f"{found['layer_flops']:,}"
    table.add_row(f"{n_others} more such", "", "", "", n_params, flops)


def _add_step(table: Table, step: Values, is_last: bool) -> None:
    letters = []
    sizes = []
    for letter, size, *_ in step["axes"]:
        letters.append(letter or f"{size}")
        sizes.append(f"{size:,}")
    name = step["path"]
    if not name:
        name = "logits" if is_last else next(iter(step["params"]), "(model)")
    n_params = f"{step['n_params']:,}" if step["n_params"] else ""
    flops = f"{step['flops']:,}" if step["flops"] else ""
    table.add_row(
        Text(name), Text(step["kind"]), " ".join(letters), " ".join(sizes), n_params, flops
    )


# --------------------------------------------------------------------- 2 tokens, 3 embeddings


def tokens(view: View, width: int) -> Group:
    """The tokens with their ids, which a line's end does not part."""
    lines = [Text()]
    known = [bits for bits in view["bits"] if bits is not None]
    top = max(known, default=1.0) or 1.0
    for token, bits in zip(view["tokens"], view["bits"], strict=True):
        shade = (bits or 0.0) / top
        red = 40 + int(200 * shade) if math.isfinite(shade) else 40  # of NaN: none
        piece = token["text"].replace(" ", "\u00b7")
        number = f" {token['id']}  "
        if lines[-1] and lines[-1].cell_len + cell_len(piece + number.rstrip()) > width:
            lines.append(Text())
        lines[-1].append(piece, style=f"rgb(240,240,240) on rgb({red},48,64)")
        lines[-1].append(number, style="dim")
    n_bytes = _n_predicted_bytes(view)
    total = f"{sum(known):.1f} bits for {len(known)} tokens of {n_bytes} bytes"
    if n_bytes:
        total += f", {sum(known) / n_bytes:.3f} bits a byte"
    return Group(*lines, Text(total, style="dim"))


def _n_predicted_bytes(view: View) -> int:
    """Bytes of all tokens but the first, which nothing predicts."""
    return sum(token["n"] for token in view["tokens"][1:])


def embeddings(view: View, width: int) -> Table | Text:
    found = view["embeddings"]
    if found is None:
        return Text(
            "this model has no table with a row for each token, or it is still zero, or not finite"
        )
    vocab = view["vocab"]
    table = plain_table("", "")
    in_text = dict.fromkeys(token["id"] for token in view["tokens"])  # each once, in order
    shown = list(in_text)[-N_EMBEDDINGS:]
    room = width - max(cell_len(quoted(vocab[i])) for i in shown)
    for i in shown:
        row = found["ids"].index(i)
        neighbours = found["near"][row][:N_NEAR]
        cosines = found["cosine"][row][:N_NEAR]
        near = zip(neighbours, cosines, strict=True)
        cells = [f"{quoted(vocab[j])} {cosine:.2f} " for j, cosine in near]
        text = "  ".join(cells[: fitting([[cell] for cell in cells], room)])
        table.add_row(Text(quoted(vocab[i])), Text(text.rstrip()))
    return table


# ------------------------------------------------------- 4 attention, 5 prediction, 6 bigram


def attention(view: View, width: int) -> Group | Text:
    layers = view["attention"]["layers"]
    if not layers:
        return Text(f"{view['about']['class']} has no attention")
    T = view["about"]["T"]
    rows: list[list[str]] = [[f"head {head}" for head in range(layers[0]["H"])][:N_HEADS]]
    for layer in layers:
        maps = unpacked(layer["weights"]).reshape(layer["H"], -1)
        cells = []
        for last_row in maps[:N_HEADS, -T:]:  # (T,): the end of the lower triangle
            best = int(last_row.argmax())
            token = view["tokens"][best]["text"]
            share = last_row[best] / 255
            cells.append(f"{quoted(token)} {share:.0%}")
        rows.append(cells)
    names = ["", *(f"layer {layer['layer']}" for layer in layers)]
    n_heads = max(1, fitting(list(zip(*rows, strict=True)), width - max(map(len, names))))
    table = plain_table("", *rows[0][:n_heads])
    for name, row in zip(names[1:], rows[1:], strict=True):
        table.add_row(name, *(Text(cell) for cell in row[:n_heads]))
    of_all = layers[0]["all_heads"]
    note = [Text(f"{n_heads} of {of_all} heads", style="dim")] if n_heads < of_all else []
    return Group(table, *note)


def prediction(view: View, width: int) -> Group:
    vocab = view["vocab"]
    parts: list[RenderableType] = []
    if view["layers"]:
        parts.append(_layer_table(view, view["layers"]["rows"][::-1], width))
    last = view["next"][-1]
    sampling = view["sampling"]
    likeliest = zip(last["ids"][:N_NEXT], last["p"][:N_NEXT], strict=True)
    words = "  ".join(f"{quoted(vocab[i])} {p:.1%}" for i, p in likeliest)
    parts.append(Text(f"next: {words}   (entropy {last['entropy']:.2f} bits)"))
    seed = sampling["draws"][0]["seed"]
    drawn = quoted(vocab[sampling["drawn"]])
    text = f"drawn with seed {seed} at temperature {sampling['temperature']}: {drawn}"
    return Group(*parts, Text(text))


def _layer_table(view: View, rows: list[Values], width: int) -> Table:
    """A column for each position: what each layer would say, and below it what was read.

    As many of the last positions as fit into `width`.
    """
    columns = []
    for t, token in enumerate(view["tokens"]):
        column = [quoted(view["vocab"][row["top"][t][0]]) for row in rows]
        column.append(quoted(token["text"]))
        columns.append(column)
    names = [*(row["path"] for row in rows), "reads"]
    last = columns[-N_SHOWN:]
    n_shown = fitting(last[::-1], width - max(len(name) for name in names))
    shown = last[len(last) - n_shown :]
    table = plain_table("", *[""] * len(shown))
    for i, name in enumerate(names):
        cells = [Text(column[i]) for column in shown]
        table.add_row(name, *cells, style="dim" if name == "reads" else "")
    return table


def bigram(view: View) -> Table | Text:
    found = view["bigram"]
    if "missing" in found:
        return Text(f"no counts: {found['missing']}")
    n_bytes = _n_predicted_bytes(view)
    table = plain_table("", ">bits", ">bits a byte")
    bits_by_model = {
        "counts of pairs": found["bits"]["counts"],
        "neural bigram": found["bits"]["neural"],
        view["about"]["model"]: view["bits"],
    }
    for name, bits in bits_by_model.items():
        total = sum(b for b in bits if b is not None)
        table.add_row(name, f"{total:.1f}", f"{total / n_bytes:.3f}" if n_bytes else "")
    return table
