"""Install what the notebooks import into the running Python: `python helpers/install.py [--dry-run]`.

For a lone notebook (Colab, an empty folder): only the [project] dependencies of pyproject.toml, never Jupyter, and never
another torch than the one that is there already.
"""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 11):      # noqa: UP036 (this file runs before pip has looked)
    sys.exit(f"The course needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
import tomllib

KEEP = ("torch", "torchaudio", "numpy")     # a platform's own build is kept as it is


def installed(name):
    """Version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def requirements(pyproject, version_of=installed):
    """The requirement lines to give to pip: the course's dependencies, with KEEP packages pinned to what is there."""
    lines = tomllib.loads(Path(pyproject).read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {line: re.match(r"[\w.-]+", line)[0].lower() for line in lines}
    if version_of("torch") and not version_of("torchaudio"):      # its newest release would bring another torch
        names = {line: name for line, name in names.items() if name != "torchaudio"}
    return [f"{name}=={version_of(name)}" if name in KEEP and version_of(name) else line for line, name in names.items()]


def main(arguments):
    command = [sys.executable, "-m", "pip", "install", "--quiet", *requirements(Path(__file__).parents[1] / "pyproject.toml")]
    if "--dry-run" in arguments:
        print(" ".join(command[1:]))
        return 0
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
