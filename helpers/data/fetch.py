"""The real data sets: what they are, where they are looked for, how they are fetched, and what is accepted."""

import hashlib
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


_MNIST = ("http://yann.lecun.com/exdb/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/",
          "https://storage.googleapis.com/cvdf-datasets/mnist/")
_SQUAD = ("https://rajpurkar.github.io/SQuAD-explorer/dataset/",)
SOURCES = {
    "ml-100k": _Source(
        "MovieLens 100K (GroupLens, research use, no redistribution)", "ml-100k",
        ("https://files.grouplens.org/datasets/movielens/ml-100k.zip",
         "http://files.grouplens.org/datasets/movielens/ml-100k.zip"),     # the owner's certificate has lapsed before
        {"u.data": "sha256:06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
         "u.item": "sha256:553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
         "u.genre": "sha256:9757e0d3e6b298159a80dd48eaf938114690e911e39af97a76949ef1663610bb"}, "ml-100k/"),
    "mnist-train": _Source(
        "MNIST, 60,000 training digits (LeCun, Cortes, Burges; CC BY-SA 3.0)", "mnist", _MNIST,
        {"train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
         "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432"}),
    "mnist-test": _Source(
        "MNIST, 10,000 test digits (LeCun, Cortes, Burges; CC BY-SA 3.0)", "mnist", _MNIST,
        {"t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
         "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c"}),
    "vgg19": _Source(
        "VGG-19 for ImageNet (Simonyan and Zisserman 2015; torchvision's weights, BSD)", "vgg19",
        ("https://download.pytorch.org/models/",), {"vgg19-dcbb9e9d.pth": "sha256:dcbb9e9d"}),     # torch.hub checks as much
    "fsdd": _Source(
        "Free Spoken Digit Dataset v1.0.10, 3,000 recordings (Jackson and others; CC BY-SA 4.0)", "fsdd",
        ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip",),
        {"recordings/": "sha256:ddb17656a0bca4c5ddace082be188ca630516dc2ef1110afe3c4e9cc71173de4"},
        "free-spoken-digit-dataset-1.0.10/"),
    "snips": _Source(
        "SNIPS voice commands, 13,084 + 700 + 700 (Coucke et al. 2018, split of Goo et al. 2018; CC0)", "snips",
        ("https://raw.githubusercontent.com/MiuLab/SlotGated-SLU/master/data/snips/",),
        {"train/seq.in": "sha256:04ad1e3f2121d83c6478f9a4b17d2dbdc21d06d6127f73cb7af835ed733f9855",
         "train/seq.out": "sha256:fd5f2121d8055827e5d6b3d3bac30f3d7e94e82a5d437751960cbdd9e1b4f6d3",
         "train/label": "sha256:bfd7df6cf9dd76c5da5d8b61bc85f90386197bdd3d7510c1d324c051537b962f",
         "valid/seq.in": "sha256:64e0f6d8ad8aab3a3828164d7d53731a0993d3ca1aed437ceaca6d3d568d410e",
         "valid/seq.out": "sha256:712e6d34feb8d52d208b820a5f8bae6e6ff990f08374507dfde22de389088319",
         "valid/label": "sha256:9c1dd041216f647bcfca838aaf1a48eb5781e4404256d31ff07cd38a5436c52f",
         "test/seq.in": "sha256:c1e341173fcea2951a8ca371956a6f81c76de87b9583c62eb87edd6158fa3a7c",
         "test/seq.out": "sha256:58c07c9097d5e1f78889765c2a535a160f6455b90b3142055c8051847afcca47",
         "test/label": "sha256:37a26da3ad079bb41c42c85a3a8f827eb47efec4c5917ce5d08f4b2736e4f830"}),
    "squad-dev": _Source(
        "SQuAD 1.1, development set (Rajpurkar et al. 2016; CC BY-SA 4.0)", "squad", _SQUAD,
        {"dev-v1.1.json": "sha256:95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9"}),
    "squad-train": _Source(
        "SQuAD 1.1, training set (Rajpurkar et al. 2016; CC BY-SA 4.0)", "squad", _SQUAD,
        {"train-v1.1.json": "sha256:3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955"}),
    "squad-article": _Source(
        "SQuAD 1.1, first article of the development set (taken from it where it is not there by itself)", "squad", _SQUAD,
        {"dev-v1.1-super-bowl-50.json": "sha256:eae461fb0c355ee27fe79fb0d9c178bef644fa6c109b512642190994cc1b99c6"}),
    "nab": _Source(
        "Numenta Anomaly Benchmark, two series with their labels (MIT)", "nab",
        ("https://raw.githubusercontent.com/numenta/NAB/master/",),
        {"nyc_taxi.csv": "sha256:d8fa6f7f0734bf5c8be12c52a94e20a82664c397d9dec4449156bd453d32856d",
         "machine_temperature_system_failure.csv": "sha256:92bf5b87fc7f9bba8ca0b7ec63ccaac8cb4a1371a258e8c29a10ae9c018d82a4",
         "combined_windows.json": "sha256:1e1fbc4601321aad8d0f8b3784c8134299379f68f6c1f7777565f8ffd57ab6b1"},
        remote={"nyc_taxi.csv": "data/realKnownCause/nyc_taxi.csv", "combined_windows.json": "labels/combined_windows.json",
                "machine_temperature_system_failure.csv": "data/realKnownCause/machine_temperature_system_failure.csv"}),
}


def choose(value, choices, what="data source"):
    """`value` if it is one of `choices`, else a ValueError that lists them."""
    if value not in choices:
        raise DataValueError(f"unknown {what} {value!r}; choose one of {', '.join(map(repr, choices))}")
    return value


def not_yet(source):
    """The error of a bundled set that is still to be made."""
    return DataError(f'the bundled data "{source}" is not part of the course yet; the real set is loaded by its own name')


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
