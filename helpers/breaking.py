"""The widget of `break_it`, and its static twin for readers of the rendered page."""

import html
import os
import sys

from .checks import COURSE


def break_it():
    """Offer the page's public functions and their one-place changes: break one, see which checks turn red, and by how much.

    For a kernel that has run the page (Run All). The change lives in a copy: neither the page's names nor its state are
    touched, and "mend" drops the copy. A change that no check notices is shown as such. Raises RuntimeError outside a page.
    """
    page = sys._getframe(1).f_globals
    text = next(iter((COURSE / "notebooks/text").glob(f"{page.get('PAGE', '?')}_*.py")), None)
    if text is None:
        raise RuntimeError('break_it works inside a page of the course that says which it is: PAGE = "43"')
    from tools import breaking, program

    show(breaking.Workbench(program.statements(program.code_cells(text.read_text(encoding="utf-8"))), page))


def show(bench):
    """Display the workbench of a page; while a page is stored (COURSE_STORE), a small table of tries as well."""
    import ipywidgets as widgets
    from IPython.display import display

    from tools.breaking import places, table

    functions = bench.functions()
    if not functions:
        raise RuntimeError("this page has no function that a check depends on")
    if os.environ.get("COURSE_STORE"):
        tries = examples(bench, functions)
        display({"text/html": twin(tries), "text/plain": "\n".join(f"{label}: {said}" for label, said in tries)},
                raw=True, metadata={"twin": True})
    wide = widgets.Layout(width="46em")
    which = widgets.Dropdown(options=list(functions), description="function", layout=wide)
    what = widgets.Dropdown(description="change", layout=wide)
    go, mend = (widgets.Button(description=word, tooltip=tip) for word, tip in (
        ("break", "rebuild the function with this change, in a copy"), ("mend", "drop the copy")))
    result = widgets.HTML()
    known = {}

    def choose(_=None):
        known.clear()
        known.update({f"{k}. {label.split(', ', 1)[1]}": (label, changed) for k, (label, changed) in
                      enumerate(places(functions[which.value], guards=False), 1)})
        what.options, result.value = list(known), ""

    def on_break(_):
        go.disabled, result.value = True, "The checks that this function reaches are running …"
        try:
            result.value = table(bench, which.value, *known[what.value])
        finally:
            go.disabled = False

    def on_mend(_):
        name = which.value
        verdicts, _ = bench.judge(name, functions[name])
        held = "".join(f"✓ ({eq}) {html.escape(text)}<br>" for eq, text, fate in verdicts if not fate)
        result.value = f"<p><b>Mended.</b> The page's own {html.escape(name)} was never touched.</p><p>{held}</p>"

    which.observe(choose, "value")
    go.on_click(on_break)
    mend.on_click(on_mend)
    choose()
    display(widgets.VBox([which, what, widgets.HBox([go, mend]), result]))


def examples(bench, functions, n=6):
    """One change each of up to n functions, spread over the page: [(change, which checks noticed)]."""
    from tools.breaking import places

    names = list(functions)
    names = names[::max(1, -(-len(names) // n))]
    tries = []
    for name in names:
        changes = list(places(functions[name], guards=False))
        label, changed = changes[len(changes) // 2]
        verdicts, left = bench.judge(name, changed)
        red = sorted({eq for eq, _, fate in verdicts if fate}, key=lambda eq: float(eq.split(".")[1]))
        tries.append((label, "✗ " + ", ".join(f"({eq})" for eq in red) if red else
                      f"no check notices{', of those that can be tried again here' if left else ''}"))
    return tries


def twin(tries):
    left = "<td style='text-align:left'>"
    rows = "".join(f"<tr>{left}<code>{html.escape(label)}</code></td>{left}{said}</td></tr>" for label, said in tries)
    return f"<table><tr><th>change</th><th>which checks turn red</th></tr>{rows}</table>"
