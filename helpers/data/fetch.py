"""The real data sets: what they are, where they are looked for, how they are fetched, and what is accepted."""

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from .. import data  # DATA and SOURCES are read from the package, at each call

BUNDLED = "bundled"


class DataError(OSError):
    """A data set cannot be had or is not what it should be; the message says what to do."""

    def _render_traceback_(self):
        """Jupyter shows the message alone: nothing on the way to it is the reader's."""
        return [f"{type(self).__name__}: {self}"]


class DataValueError(ValueError):
    """A data set of an unknown name, or a file with a malformed row, which the message names."""

    _render_traceback_ = DataError._render_traceback_


@dataclass(frozen=True)
class _Source:
    """A real data set: its folder, the checksum of each file ("sha256:…", which may be cut; "recordings/": of the sounds in
    that folder), and the addresses tried in turn: of a zip that holds the files in `in_zip`, or of the folder that holds
    them, there named as in `remote` if not as here."""

    title: str
    folder: str
    urls: tuple
    checksums: dict
    in_zip: str | None = None
    remote: dict = field(default_factory=dict)


def known():
    """The real data sets by name, from `data/sources.json`."""
    about = json.loads((Path(__file__).resolve().parents[2] / "data/sources.json").read_text(encoding="utf-8"))
    return {name: _Source(**(fields | {"urls": tuple(fields["urls"])})) for name, fields in about.items()}


def choose(value, choices, what="data source"):
    """`value` if it is one of `choices`, else a ValueError that lists them."""
    if value not in choices:
        raise DataValueError(f"unknown {what} {value!r}; choose one of {', '.join(map(repr, choices))}")
    return value


def places(source):
    """The folders in which a real data set is looked for, in this order."""
    own, folder = os.environ.get("COURSE_DATA", "").strip(), data.SOURCES[source].folder
    cache = data.DATA / "cache" / folder
    if not own:
        return [cache]
    roots = [root / Path(own).expanduser() for root in (data.DATA.parent, Path.cwd(), *Path.cwd().parents)]
    return [next(filter(os.path.isdir, roots), roots[0]) / folder, cache]


def found(source):
    """The folder that holds every file of a real data set, or None; reads no contents and downloads nothing."""
    return next((p for p in data.places(source) if all(_there(p / name) for name in data.SOURCES[source].checksums)), None)


def _files(path):
    """The file itself, or the sounds of a folder in the bytewise order of their names."""
    return sorted(path.glob("*.wav"), key=lambda p: os.fsencode(p.name)) if os.path.isdir(path) else [path]


def _there(path):
    return any(map(os.path.isfile, _files(path)))


def _digest(path, like):
    """Checksum of the contents in the form of the checksum `like`: "sha256:…" or "md5:…"."""
    kind = like.split(":")[0]
    total = hashlib.new(kind)
    for part in _files(path):
        with open(part, "rb") as file:
            while block := file.read(2**20):
                total.update(block)
    return f"{kind}:{total.hexdigest()}"


def find(source, name, parse=None):
    """Path of a verified file of a real data set, downloaded if need be. `parse` names the bad row of a wrong file."""
    about = data.SOURCES[source]
    wanted = about.checksums[name]
    for folder in data.places(source):
        path = folder / name
        if not _there(path):
            continue
        try:
            digest = _digest(path, wanted)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}): mend its permissions or move it away") from None
        if digest.startswith(wanted):
            return path
        if parse:
            try:
                parse(path)
            except DataValueError:
                raise
            except Exception:       # so far from the format that no row can be named: the checksum says it
                pass
        raise DataError(f"{path} is not the published {name} of {about.title}: it has {digest}, expected {wanted}. "
                        "Move the file away; the next run looks further or downloads it.")
    _download(source, data.places(source)[-1])
    return data.places(source)[-1] / name


def _download(source, folder):
    """Fetch the files of a data set into `folder`; whatever goes wrong, no file with other contents appears there."""
    about, problems = data.SOURCES[source], []
    for url in about.urls:
        scratch = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".download-", dir=folder.parent))
            _fetch(about, url, scratch)
            wrong = [name for name, wanted in about.checksums.items() if not _digest(scratch / name, wanted).startswith(wanted)]
            if wrong:
                raise DataError(f"the contents of {', '.join(wrong)} are not the published ones (checksum differs)")
            for name in about.checksums:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(scratch / name, folder / name)
            return
        except Exception as error:      # every way a download fails leads to the next address, then to one clear error
            problems.append(f"  {url}: {type(error).__name__}: {str(error)[:200]}")
        finally:
            if scratch:
                shutil.rmtree(scratch, ignore_errors=True)
    raise DataError(
        f"{about.title} is not on this machine and could not be downloaded:\n" + "\n".join(problems) +
        f"\nEither put {', '.join(about.checksums)} into {folder} (or into a folder {about.folder}/ in the folder that "
        f'COURSE_DATA names), or choose the bundled data where there are some: DATA = "{BUNDLED}" in the parameters cell, '
        f'source="{BUNDLED}" in code.')


def _fetch(about, url, scratch):
    """Put every file of a data set into the folder `scratch`, from one address."""
    import pooch

    pooch.get_logger().setLevel("WARNING")

    def get(address, path):
        bar = pooch.HTTPDownloader(progressbar=not os.environ.get("COURSE_QUIET"), timeout=20)
        pooch.retrieve(address, known_hash=None, path=path.parent, fname=path.name, downloader=bar)

    if about.in_zip is None:
        for name in about.checksums:
            get(url + about.remote.get(name, name), scratch / name)
        return
    get(url, scratch / ".zip")
    with zipfile.ZipFile(scratch / ".zip") as archive:
        for member in archive.namelist():
            name = member.removeprefix(about.in_zip)
            if not name.endswith("/") and (name in about.checksums or f"{Path(name).parent}/" in about.checksums):
                (scratch / name).parent.mkdir(exist_ok=True)
                (scratch / name).write_bytes(archive.read(member))
