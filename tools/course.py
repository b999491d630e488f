"""The commands behind the Makefile: `python tools/course.py run 43 | sync | full 43 … | work | fresh 43 | pdf 43 | stamp`."""

import argparse
import ast
import base64
import datetime
import hashlib
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
IGNORE = "nbval-ignore-output"


def texts():
    """The text files of all notebooks, in order."""
    return sorted((NOTEBOOKS / "text").glob("[0-9][0-9]_*.py"))


def text_of(number):
    """The text file of the notebook with this number; exits with the list of numbers if there is none."""
    match = [p for p in texts() if number and p.name.startswith(f"{number:0>2}_")]
    if len(match) != 1:
        known = ", ".join(p.name[:2] for p in texts())
        sys.exit(f"There is no notebook {number or '(none given)'}. Name one with NB=…: {known}")
    return match[0]


def notebook_of(text):
    return NOTEBOOKS / f"{text.stem}.ipynb"


def sync(paths):
    """Bring pairs together with jupytext: the newer half wins."""
    for text in paths:
        newest = max((p for p in (text, notebook_of(text)) if p.exists()), key=lambda p: p.stat().st_mtime)
        subprocess.run([sys.executable, "-m", "jupytext", "--quiet", "--sync", str(newest)], check=True, cwd=ROOT)


def smaller(png):
    """A base64 PNG of a drawing (few colours) with a palette, if nobody could tell; a photo stays as it is."""
    from PIL import Image, ImageChops, ImageStat

    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    full = picture.convert("RGB")
    if picture.mode == "P" or full.getcolors(2**15) is None:
        return png
    reduced, packed = full.quantize(256, kmeans=3, dither=Image.Dither.NONE), io.BytesIO()
    reduced.save(packed, "png", optimize=True)
    error = ImageStat.Stat(ImageChops.difference(full, reduced.convert("RGB"))).mean
    return base64.b64encode(packed.getvalue()).decode() if max(error) < 0.1 else png        # of 255 levels, on average


def cleaned(nb):
    """A notebook as it is committed: no widget state, no outputs of widget cells (but their static twins) and of cells tagged
    no-output; cells tagged hide-input folded in JupyterLab. Drawings are packed, photos stay as they are."""
    nb.metadata.pop("widgets", None)
    nb.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nb.metadata.pop("language_info", None)
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("jupyter", None)
        if cell.cell_type == "code":
            tags = cell.metadata.get("tags", [])
            if "hide-input" in tags:
                cell.metadata["jupyter"] = {"source_hidden": True}
            shown = any(WIDGET in o.get("data", {}) for o in cell.outputs)
            twins = [o for o in cell.outputs if o.get("metadata", {}).get("twin")]
            cell.outputs = twins if "no-output" in tags or (shown and IGNORE in tags) else [
                o for o in cell.outputs if WIDGET not in o.get("data", {})]
            for output in (o for o in cell.outputs if "image/png" in o.get("data", {})):
                output.data["image/png"] = smaller(output.data["image/png"])
                if IGNORE in tags:          # elsewhere nbval wants the kind of picture that the kernel gives
                    as_jpeg(output)
    return nb


def as_jpeg(output):
    """Store what no palette can hold as JPEG of quality 92, colours not thinned out, if that is much smaller."""
    from PIL import Image

    png = base64.b64decode(output.data["image/png"])
    picture, packed = Image.open(io.BytesIO(png)), io.BytesIO()
    if picture.mode == "P":
        return
    picture.convert("RGB").save(packed, "jpeg", quality=92, subsampling=0, optimize=True)
    if packed.tell() < 0.7 * len(png):
        output.data["image/jpeg"] = base64.b64encode(packed.getvalue()).decode()
        del output.data["image/png"]
        size = output.get("metadata", {}).pop("image/png", None)
        if size:
            output.metadata["image/jpeg"] = size


NAVIGATION = re.compile(r"\n*<!-- navigation -->.*?<!-- /navigation -->", re.S)


def navigation(text):
    """The line previous · map · next of a notebook, as it stands in its title and its last cell."""
    every = texts()
    place = every.index(text)
    names = {"previous": every[place - 1] if place else None, "map": every[0] if place else None,
             "next": every[place + 1] if place + 1 < len(every) else None}
    links = [f"{word}: [{titles(t)}]({t.stem}.ipynb)" for word, t in names.items() if t]
    return f"<!-- navigation -->\n{' · '.join(links)}\n<!-- /navigation -->"


def titles(text):
    """ "43 Latent factors" of "# 43 · Latent factors: ALS, HALS and SGD"."""
    found = re.search(r"^# # (\d\d) · (.+)$", text.read_text(encoding="utf-8"), re.M)
    return f"{found[1]} {re.split(r'[:(]', found[2])[0].strip()}" if found else text.stem


def navigated(text):
    """Write previous · map · next into the first and the last markdown cell of a notebook's text."""
    old = text.read_text(encoding="utf-8")
    head, *cells = re.split(r"(?m)^(?=# %%)", old)
    marked = [k for k, c in enumerate(cells) if c.startswith("# %% [markdown]")]
    if len(marked) < 2:
        return
    line = "\n".join(f"# {part}" for part in navigation(text).splitlines())
    for k in {marked[0], marked[-1]}:
        body = re.sub(r"(?:#\n)*# <!-- navigation -->\n(?:#.*\n)*?# <!-- /navigation -->\n", "", cells[k]).rstrip("\n")
        tail = cells[k][len(cells[k].rstrip("\n")):]
        cells[k] = f"{body}\n#\n{line}{tail}"
    new = head + "".join(cells)
    if new != old:
        write(text, new)


def write(path, contents):
    """Replace a file in one step: whoever reads it sees the old or the new one, whole."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(contents if isinstance(contents, bytes) else contents.encode("utf-8"))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        sys.exit(f"{path} could not be written: {error.strerror or error}. Free some space or make the folder writable.")


def listen_patiently():
    """Let Jupyter's client ask for messages every 200 ms instead of sleeping until it is woken.

    After a cell with an Output widget nbclient sometimes misses the kernel's reply (handling the widget sends on the same
    socket, which swallows the wake-up) and would wait until the timeout, 20 minutes later.
    """
    from queue import Empty

    from jupyter_client.channels import AsyncZMQSocketChannel

    async def get_msg(self, timeout=None):
        end = None if timeout is None else time.monotonic() + timeout
        while not await self.socket.poll(200):
            if end is not None and time.monotonic() > end:
                raise Empty
        return await self._recv()

    AsyncZMQSocketChannel.get_msg = get_msg


def run(number, force=False):
    """Execute one notebook from its text and store its outputs. Stored timings need a quiet machine (or force)."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    text = text_of(number)
    load, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, os.cpu_count() or 1
    times = re.search(r"^[^#\n]*\b(timed|compare_speed)\(", text.read_text(encoding="utf-8"), re.M)
    if times and load > cores and not (force or os.environ.get("COURSE_LOADED")):
        sys.exit(f"The machine is busy (load {load:.1f} on {cores} cores), and {text.stem} stores timings. "
                 f"Wait, or: make run NB={number} FORCE=1")
    os.environ["COURSE_QUIET"] = os.environ["COURSE_STORE"] = "1"      # as under test: no progress bars, one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    listen_patiently()
    navigated(text)
    os.utime(text)                  # the text is what contributors edit: it wins
    sync([text])
    path, start = notebook_of(text), time.perf_counter()
    nb = nbformat.read(path, as_version=4)
    try:
        NotebookClient(nb, timeout=1200, record_timing=False, kernel_name="python3",
                       resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    except CellExecutionError as error:
        sys.exit(f"{path.name} stopped with an error; its stored outputs are as before.\n\n{error}")
    write(path, nbformat.writes(cleaned(nb)) + "\n")
    os.utime(text)
    print(f"{path.relative_to(ROOT)}: executed in {time.perf_counter() - start:.1f} s, {path.stat().st_size // 1024} KB")


def value_of(text):
    """A parameter given on the command line: a Python literal if it is one (1e-3, [1, 2], True), else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text, text)


def parameters_of(path):
    """The names that a notebook's parameters cell sets."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    cell = next((c for c in cells if "parameters" in c["metadata"].get("tags", [])), {"source": []})
    return re.findall(r"^([A-Z][A-Z_0-9]*) *=", "".join(cell["source"]), re.M)


def full(number, extra):
    """Execute a copy of one notebook with its full-size parameters into build/full/; keep what it measured in full.json."""
    import papermill
    import yaml

    listen_patiently()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")        # a console that knows no ✓ prints something else
    path = notebook_of(text_of(number))
    parameters = (yaml.safe_load((NOTEBOOKS / "full.yaml").read_text(encoding="utf-8")) or {}).get(path.stem[:2]) or {}
    parser = argparse.ArgumentParser(prog="make full ARGS=", description="papermill's -p NAME VALUE")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    own = {name: value_of(value) for name, value in parser.parse_args(extra).p}
    unknown = [name for name in own if name not in parameters_of(path)]
    if unknown:
        sys.exit(f"{path.name} has no parameter {', '.join(unknown)}. It has: {', '.join(parameters_of(path)) or 'none'}")
    parameters |= own
    target = ROOT / "build/full" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    record = Path(tempfile.mkstemp(prefix="measured-", suffix=".jsonl", dir=target.parent)[1])
    os.environ["COURSE_FULL"] = str(record)
    print(f"{path.name} with {parameters or 'its default parameters'}", flush=True)
    start = time.perf_counter()
    try:
        papermill.execute_notebook(path, target, parameters, cwd=NOTEBOOKS, kernel_name="python3", progress_bar=False)
    except papermill.PapermillExecutionError as error:
        sys.exit(f"{target.relative_to(ROOT)} stopped with an error (there in full; the committed notebook is untouched):\n"
                 f"{error.ename}: {error.evalue}")
    seconds = time.perf_counter() - start
    cells = json.loads(target.read_text(encoding="utf-8"))["cells"]
    said = [line for c in cells for o in c.get("outputs", []) for line in "".join(o.get("text", [])).splitlines()]
    print("\n".join(line for line in said if line.startswith(("✓", "•", "full run:"))))
    print(f"{target.relative_to(ROOT)}: {seconds:.0f} s")
    found = {r.pop("key"): r for r in map(json.loads, record.read_text(encoding="utf-8").splitlines())}
    record.unlink()
    if found and not own:
        keep(path.stem[:2], {"date": datetime.date.today().isoformat(), "seconds": round(seconds), "hardware": hardware(),
                             "parameters": parameters, "measured": found})
    elif own:
        print("Parameters were given by hand: notebooks/full.json stays as it is.")


def hardware():
    """What a full run ran on, in words."""
    import torch

    if torch.cuda.is_available() and os.environ.get("COURSE_DEVICE") != "cpu":
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores"


FULL = NOTEBOOKS / "full.json"


def kept():
    """What full runs measured, by notebook."""
    return json.loads(FULL.read_text(encoding="utf-8")) if FULL.exists() else {}


def keep(number, run):
    write(FULL, json.dumps(dict(sorted((kept() | {number: run}).items())), indent=1, ensure_ascii=False) + "\n")
    print(f"notebooks/full.json holds what {number} measured; make sync fills README and pages.")


def shown(value, error=None):
    """A measured number for readers: 0.9138 ± 0.0041 → "0.914 ± 0.004"; without an error three or four digits that count."""
    if error and error > 1e-9 * abs(value):     # below that the spread is rounding
        digits = max(0, -math.floor(math.log10(error)))
        return f"{value:.{digits}f} ± {error:.{digits}f}"
    if float(value).is_integer():           # a count
        return f"{value:,.0f}"
    return f"{value:.{max(0, (3 if abs(value) < 1 else 4) - 1 - math.floor(math.log10(abs(value))))}f}" if value else "0"


SPAN = re.compile(r"(<!--full:(\d\d)\.([^<>]+?)-->)(.*?)(<!--/full-->)")


def filled(source):
    """A text with its spans <!--full:43.rmse-->…<!--/full--> filled from full.json; unknown ones stay."""
    runs = kept()

    def fill(m):
        run = runs.get(m[2], {})
        if m[3] in ("seconds", "date", "hardware"):
            return m[1] + str(run[m[3]]) + m[5] if m[3] in run else m[0]
        found = run.get("measured", {}).get(m[3])
        return m[1] + shown(found["value"], found.get("error")) + m[5] if found else m[0]
    return SPAN.sub(fill, source)


def fill():
    """Fill README and the texts of the notebooks from full.json."""
    for path in [ROOT / "README.md", *texts()]:
        old = path.read_text(encoding="utf-8")
        if filled(old) != old:
            write(path, filled(old))
            print(f"{path.relative_to(ROOT)}: filled from full.json")


def content(path):
    """What a reader can change in a notebook: kinds and sources of its cells. (JupyterLab alone rewrites the metadata.)"""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        whole = [(c["cell_type"], "".join(c["source"])) for c in cells]
    except (ValueError, KeyError, TypeError):
        whole = path.read_bytes().hex()         # not a notebook any more: certainly a change
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def work(target=ROOT / "work"):
    """Copy every notebook into work/ for the reader; refresh what nobody changed, never overwrite what somebody did.

    A newer version of a notebook that the reader changed is put beside it as "43_… (new).ipynb". Says so on the last lines.
    """
    try:
        target.mkdir(exist_ok=True)
        news = [line for source in sorted(NOTEBOOKS.glob("*.ipynb")) if (line := hand_out(source, target))]
    except PermissionError as error:
        sys.exit(f"{error.filename} cannot be written. Make work/ writable, or clone the course into a folder of your own.")
    if news:
        print("\n" + "\n".join(news) + "\n", flush=True)
    return news


def hand_out(source, target):
    """Bring one notebook to the reader's desk; a line about it, if there is something to say."""
    record = target / ".copied.json"
    try:
        copied = dict(json.loads(record.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        copied = {}
    mine, new = target / source.name, content(source)
    here, last = content(mine) if mine.exists() else None, copied.get(source.name)
    line = None
    untouched = here == last or (mine.exists() and hashlib.sha256(mine.read_bytes()).hexdigest() == last)     # as recorded before
    if here is None or here == new or untouched:
        if here != new:
            write(mine, source.read_bytes())
    elif last != new:
        beside = target / f"{source.stem} (new).ipynb"
        write(beside, source.read_bytes())
        line = (f"work/{source.name} has your changes and stays as it is; the course has a newer one: it is beside it, "
                f"{beside.name}. (make fresh NB={source.name[:2]} takes it and keeps yours under a dated name.)")
    if last != new:
        write(record, json.dumps(copied | {source.name: new}, indent=1))
    return line


def fresh(number, target=ROOT / "work"):
    """Give the reader a fresh copy of one notebook; the old one is kept under a dated name."""
    source = notebook_of(text_of(number))
    mine = target / source.name
    target.mkdir(exist_ok=True)
    if mine.exists() and content(mine) != content(source):
        stamp_ = datetime.datetime.now().strftime("%Y-%m-%d %H-%M-%S")
        os.replace(mine, target / f"{source.stem} ({stamp_}).ipynb")
        print(f"Your version is kept as work/{source.stem} ({stamp_}).ipynb")
    write(mine, source.read_bytes())
    (target / f"{source.stem} (new).ipynb").unlink(missing_ok=True)
    hand_out(source, target)
    print(f"work/{source.name} is as the course has it.")


def pdf(number):
    """Print one notebook into build/pdf/, with every answer unfolded and nothing cut, by headless Chromium."""
    import shutil

    from nbconvert import HTMLExporter
    from playwright.sync_api import sync_playwright

    path = notebook_of(text_of(number))
    html, _ = HTMLExporter().from_filename(path)
    html = html.replace("<details>", "<details open>").replace("</head>", "<style>pre, code {white-space: pre-wrap !important; "
                        "overflow-wrap: anywhere} .jp-Cell, details {break-inside: auto}</style></head>")
    target = ROOT / "build/pdf" / f"{path.stem}.pdf"
    target.parent.mkdir(parents=True, exist_ok=True)
    page_file = target.with_suffix(".html")
    page_file.write_text(html, encoding="utf-8")
    browser = next((b for b in map(shutil.which, ("chromium", "google-chrome", "chromium-browser")) if b), None)
    if browser is None:
        sys.exit("make pdf needs Chromium or Chrome (on Debian and Ubuntu: apt install chromium).")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        page.goto(page_file.as_uri(), wait_until="load")
        page.wait_for_timeout(3000)         # formulas are drawn by a script
        page.pdf(path=str(target), format="A4", scale=0.62, margin=dict.fromkeys(("top", "bottom", "left", "right"), "12mm"))
        chromium.close()
    page_file.unlink()
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size // 1024} KB")


def readme_rows():
    """The rows of the README's table of notebooks, read from their title cells and equation tags."""
    rows = []
    for text in texts():
        source, number = text.read_text(encoding="utf-8"), text.name[:2]
        title = re.search(rf"^# # {number} · (.+)$", source, re.M)[1]
        line = re.search(r"^# (.*\*\*Time\*\*.*)$", source, re.M)[1]
        facts = dict(re.findall(r"\*\*([\w ]+)\*\* (.+?)(?: ·|$)", line))
        tags = re.findall(r"\\tag\{([\d.]+)\}", source)
        formulas = f"{tags[0]}–{tags[-1]}" if len(tags) > 1 else "".join(tags) or "–"
        rows.append(f"| [{number} · {title}](notebooks/{text.stem}.ipynb) | {formulas} | {facts['Time'].split(' on ')[0]} | "
                    f"{facts['Data']} | {facts.get('Exam questions', '–')} |")
    return rows


def readme():
    """Bring the README's table of notebooks up to date."""
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    table = "".join(row + "\n" for row in readme_rows())
    new = re.sub(r"(<!-- notebooks -->\n(?:\|.*\n){2})(?:\|.*\n)*", lambda m: m[1] + table, old)
    if new != old:
        write(path, new)
        print("README.md: table of notebooks brought up to date")


def address():
    """The course's address on the web, from [project.urls] of pyproject.toml; empty while it is not set."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {}).get("Repository", "")


def stamp():
    """Write the course's address into the setup cells of all notebooks."""
    url = address().removesuffix(".git").rstrip("/")
    for path in [*texts(), *NOTEBOOKS.glob("*.ipynb")]:
        old = path.read_text(encoding="utf-8")
        new = re.sub(r'(COURSE_REPO\\?"\) or \\?")[^"\\]*', lambda m: m[1] + url, old)
        if new != old:
            write(path, new)
            print(f"stamped {path.relative_to(ROOT)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run", "sync", "full", "work", "fresh", "pdf", "stamp"])
    parser.add_argument("number", nargs="?", default="")
    parser.add_argument("--force", action="store_true", help="run: store timings of a busy machine")
    arguments, extra = parser.parse_known_args()
    if arguments.command == "full":
        return full(arguments.number, extra)
    if extra:
        parser.error(f"unknown: {' '.join(extra)}")
    if arguments.command == "run":
        return run(arguments.number, arguments.force)
    if arguments.command == "sync":
        for text in texts():
            navigated(text)
        fill()
        sync(texts())
        return readme()
    if arguments.command in ("fresh", "pdf"):
        return {"fresh": fresh, "pdf": pdf}[arguments.command](arguments.number)
    return {"work": work, "stamp": stamp}[arguments.command]()


if __name__ == "__main__":
    main()
