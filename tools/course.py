"""The commands behind the Makefile: `python tools/course.py run 43 | sync | full 43 … | work | stamp`."""

import argparse
import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
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
    """A base64 PNG with a palette of 256 colours, fitted to it, if that saves much and cannot be seen; else as it is."""
    from PIL import Image, ImageChops, ImageStat

    picture = Image.open(io.BytesIO(base64.b64decode(png)))
    if picture.mode != "P":
        full = picture.convert("RGB")
        reduced, packed = full.quantize(256, kmeans=5, dither=Image.Dither.NONE), io.BytesIO()
        reduced.save(packed, "png", optimize=True)
        error = ImageStat.Stat(ImageChops.difference(full, reduced.convert("RGB"))).mean
        if max(error) < 8 and packed.tell() < len(png) * 0.6:      # of 255 levels, on average
            return base64.b64encode(packed.getvalue()).decode()
    return png


def cleaned(nb):
    """A notebook as it is committed: no widget state, no outputs of widget cells and of cells tagged no-output, small PNGs."""
    nb.metadata.pop("widgets", None)
    nb.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nb.metadata.pop("language_info", None)
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            shown = any(WIDGET in o.get("data", {}) for o in cell.outputs)
            tags = cell.metadata.get("tags", [])
            cell.outputs = [] if "no-output" in tags or (shown and IGNORE in tags) else [
                o for o in cell.outputs if WIDGET not in o.get("data", {})]
            for data in (o["data"] for o in cell.outputs if "image/png" in o.get("data", {})):
                data["image/png"] = smaller(data["image/png"])
    return nb


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


def run(number):
    """Execute one notebook from its text and store its outputs."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    os.environ["COURSE_QUIET"] = "1"                    # as under test: no progress bars, one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    listen_patiently()
    text = text_of(number)
    os.utime(text)                  # the text is what contributors edit: it wins
    sync([text])
    path, start = notebook_of(text), time.perf_counter()
    nb = nbformat.read(path, as_version=4)
    try:
        NotebookClient(nb, timeout=1200, record_timing=False, kernel_name="python3",
                       resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    except CellExecutionError as error:
        sys.exit(f"{path.name} stopped with an error; its stored outputs are as before.\n\n{error}")
    nbformat.write(cleaned(nb), path)
    os.utime(text)
    print(f"{path.relative_to(ROOT)}: executed in {time.perf_counter() - start:.1f} s, {path.stat().st_size // 1024} KB")


def full(number, extra):
    """Execute a copy of one notebook with its full-size parameters into build/full/."""
    import papermill
    import yaml

    listen_patiently()
    path = notebook_of(text_of(number))
    parameters = (yaml.safe_load((NOTEBOOKS / "full.yaml").read_text(encoding="utf-8")) or {}).get(path.stem[:2]) or {}
    parser = argparse.ArgumentParser(prog="make full ARGS=", description="papermill's -p NAME VALUE")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parameters |= {name: yaml.safe_load(value) for name, value in parser.parse_args(extra).p}
    target = ROOT / "build/full" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"{path.name} with {parameters or 'its default parameters'}", flush=True)
    start = time.perf_counter()
    try:
        papermill.execute_notebook(path, target, parameters, cwd=NOTEBOOKS, kernel_name="python3", progress_bar=False)
    except papermill.PapermillExecutionError as error:
        sys.exit(f"{target.relative_to(ROOT)} stopped with an error (the committed notebook is untouched):\n\n{error}")
    cells = json.loads(target.read_text(encoding="utf-8"))["cells"]
    said = [line for c in cells for o in c.get("outputs", []) for line in "".join(o.get("text", [])).splitlines()]
    print("\n".join(line for line in said if line.startswith(("✓", "full run:"))))
    print(f"{target.relative_to(ROOT)}: {time.perf_counter() - start:.0f} s")


def work(target=ROOT / "work"):
    """Copy every notebook into work/ for the reader; refresh what he has not touched, never overwrite what he has."""
    target.mkdir(exist_ok=True)
    record = target / ".copied.json"
    try:
        copied = dict(json.loads(record.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        copied = {}
    for source in sorted(NOTEBOOKS.glob("*.ipynb")):
        new, mine = source.read_bytes(), target / source.name
        digest = hashlib.sha256(new).hexdigest()
        here = hashlib.sha256(mine.read_bytes()).hexdigest() if mine.exists() else None
        if here in (None, copied.get(source.name)) and here != digest:
            part = target / f".{source.name}.part"
            part.write_bytes(new)
            os.replace(part, mine)
        elif here not in (digest, copied.get(source.name)) and copied.get(source.name) != digest:
            print(f"work/{source.name} has your changes and stays as it is. The course has a newer one: to get it, rename "
                  f"yours and run make lab again (or look at notebooks/{source.name}).")
            continue
        copied[source.name] = digest
        record.write_text(json.dumps(copied, indent=1), encoding="utf-8")


def readme_rows():
    """The rows of the README's table of notebooks, read from their title cells and equation tags."""
    rows = []
    for text in texts():
        source, number = text.read_text(encoding="utf-8"), text.name[:2]
        title = re.search(rf"^# # {number} · (.+)$", source, re.M)[1]
        line = re.search(r"^# (\*\*Time\*\*.*)$", source, re.M)[1]
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
        path.write_text(new, encoding="utf-8")
        print("README.md: table of notebooks brought up to date")


def address():
    """The course's address on the web, from [project.urls] of pyproject.toml; empty while it is not set."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {}).get("Repository", "")


def stamp():
    """Write the course's address into the setup cells and Colab badges of all notebooks and of the README."""
    url = address().removesuffix(".git").rstrip("/")
    repository = url.removeprefix("https://github.com/")
    for path in [*texts(), *NOTEBOOKS.glob("*.ipynb"), ROOT / "README.md"]:
        old = path.read_text(encoding="utf-8")
        new = re.sub(r'(COURSE_REPO\\?"\) or \\?")[^"\\]*', lambda m: m[1] + url, old)
        colab = "https://colab.research.google.com/"
        page = f"{colab}github/{repository}/blob/main/notebooks/{path.stem}.ipynb" if url else colab
        if path.name != "README.md":
            new = re.sub(r"(colab-badge\.svg\)\]\()[^)]*", lambda m: m[1] + page, new)
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"stamped {path.relative_to(ROOT)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run", "sync", "full", "work", "stamp"])
    parser.add_argument("number", nargs="?", default="")
    arguments, extra = parser.parse_known_args()
    if arguments.command == "full":
        return full(arguments.number, extra)
    if extra:
        parser.error(f"unknown: {' '.join(extra)}")
    if arguments.command == "run":
        return run(arguments.number)
    if arguments.command == "sync":
        sync(texts())
        return readme()
    return {"work": work, "stamp": stamp}[arguments.command]()


if __name__ == "__main__":
    main()
