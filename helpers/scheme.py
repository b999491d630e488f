"""Schemes: boxes and arrows drawn from a small dict, the same hand for every topic."""

import matplotlib

KINDS = {   # fill, edge width, edge style, box style
    "box": ("#f2f2f2", 1.1, "-", "square,pad=0.45"), "round": ("white", 1.1, "-", "round,pad=0.4,rounding_size=0.6"),
    "bold": ("#d9d9d9", 2.2, "-", "square,pad=0.5"), "hidden": ("white", 1.1, "--", "round,pad=0.4,rounding_size=0.6"),
    "plain": ("none", 0.0, "-", "square,pad=0.25"),
}
STYLES = ("dashed", "thick", "both", "line", "left", "right")


def scheme(nodes, arrows, *, size=None, title=None):
    """Draw boxes and arrows, readable in grey; the caller ends with `plt.show()`.

    nodes: dict name -> (x, y), (x, y, text) or (x, y, text, kind). x to the right and y upwards in steps of about one box;
        text may hold newlines and $formulas$ (default: the name). kind: "box" a computation (default), "round" data or
        a variable, "bold" what the page is about, "hidden" what nobody observes (dashed edge), "plain" text alone.
    arrows: list of (from, to), (from, to, text) or (from, to, text, style); style: words out of "dashed" "thick" "both"
        (two heads) "line" (no head) "left" "right" (bent to that side, as seen along the arrow).
    size: (width, height) of the figure in inches; default by the grid. Returns the matplotlib figure.
    Raises ValueError for an arrow between unknown nodes, an unknown kind or style.
    """
    import matplotlib.pyplot as plt

    if not nodes:
        raise ValueError("scheme needs nodes: {'name': (x, y, 'text', kind)}")
    x, y = ([float(node[k]) for node in nodes.values()] for k in (0, 1))
    size = size or (max(1.9 * (max(x) - min(x) + 1), 3.0), max(1.0 * (max(y) - min(y) + 1), 1.2))
    fig, ax = plt.subplots(figsize=size)
    ax.set(xlim=(min(x) - 0.5, max(x) + 0.5), ylim=(min(y) - 0.5, max(y) + 0.5), title=title or "")
    ax.axis("off")
    boxes = {name: _node(ax, name, *node) for name, node in nodes.items()}
    fig.canvas.draw()                       # the boxes get their sizes, which the arrows end at
    for arrow in arrows:
        _arrow(ax, nodes, boxes, *arrow)
    return fig


def _node(ax, name, x, y, text=None, kind="box"):
    if kind not in KINDS:
        raise ValueError(f"node {name!r}: kind {kind!r} is none of {', '.join(KINDS)}")
    fill, width, style, shape = KINDS[kind]
    edge = "#222222" if width else "none"
    return ax.text(x, y, name if text is None else text, ha="center", va="center", fontsize=10, zorder=3, linespacing=1.3,
                   bbox={"boxstyle": shape, "fc": fill, "ec": edge, "lw": width, "ls": style})


def _arrow(ax, nodes, boxes, start, end, text="", style=""):
    missing = [name for name in (start, end) if name not in nodes]
    words = style.split()
    if missing or not set(words) <= set(STYLES):
        raise ValueError(f"arrow {start!r} -> {end!r}: " + (f"no node {missing[0]!r}" if missing else
                         f"style {style!r} may hold {', '.join(STYLES)}"))
    bend = 0.28 * (("right" in words) - ("left" in words))
    head = "-" if "line" in words else "<|-|>" if "both" in words else "-|>"
    a, b = nodes[start][:2], nodes[end][:2]
    ax.annotate("", b, a, zorder=3.5, arrowprops={      # after the boxes, whose places are final only when they are drawn
        "arrowstyle": head, "mutation_scale": 13, "lw": 2.2 if "thick" in words else 1.2, "color": "#222222",
        "ls": "--" if "dashed" in words else "-", "connectionstyle": f"arc3,rad={bend}", "shrinkA": 2, "shrinkB": 2,
        "patchA": boxes[start].get_bbox_patch(), "patchB": boxes[end].get_bbox_patch()})
    if text:
        to_pixels = ax.transData.transform
        (ax0, ay0), (bx0, by0) = to_pixels(a), to_pixels(b)
        middle = ((ax0 + bx0) / 2 + bend * (by0 - ay0) / 2, (ay0 + by0) / 2 - bend * (bx0 - ax0) / 2)
        ax.text(*ax.transData.inverted().transform(middle), text, ha="center", va="center", fontsize=9, zorder=4,
                bbox={"boxstyle": "square,pad=0.15", "fc": matplotlib.rcParams["axes.facecolor"], "ec": "none"})
