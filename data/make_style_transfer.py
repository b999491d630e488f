"""Paint the large picture of notebook 11: `python data/make_style_transfer.py [FOLDER]` writes style_transfer_large.jpg.

Three photos in three styles, side by side: coffee as tiles, flower in strokes, temple in waves. Each is made by the notebook's
own `paint`, loaded from its text: `stylize` at a third, two thirds and all of 384 pixels (the style: of 512), 80, 60 and 45
evaluations of L-BFGS; alpha = 1, beta = 20 H W at every level, 4 TV_1, the page's style weights and `COLOUR` for the colour
layer, content at conv4_1; the bundled network with repeated edges; start: the photo recoloured. No random number is drawn (and
seed 0 is set), but another machine may round otherwise, and L-BFGS makes that visible in details.

About four minutes on a CPU core; JPEG of quality 90.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from helpers import data, feature_net, seed  # noqa: E402
from tests.book import book  # noqa: E402

PAIRS = (("coffee", "tiles"), ("flower", "strokes"), ("temple", "waves"))
SIDE, STYLE_SIDE, STEPS = 384, 512, (80, 60, 45)
STRENGTH, TV = 20.0, 4.0


def pictures(pairs=PAIRS, side=SIDE, style_side=STYLE_SIDE, steps=STEPS):
    """The stylised photos, one after the other: tensors (3, side, side) in [0, 1]."""
    page = book("11").definitions()
    net = page["WithColour"](page["replicate_edges"](feature_net("bundled")))
    weights = page["STYLE_WEIGHTS"] | {"colour": page["COLOUR"]}
    for motif, manner in pairs:
        yield page["paint"](data.photo(motif, side), data.photo(manner, style_side), net, steps=steps, strength=STRENGTH,
                            weights=weights, tv=TV)


def row(images):
    """Tensors (3, H, W) in [0, 1] side by side, as a PIL image."""
    whole = torch.cat(list(images), 2).permute(1, 2, 0)
    return Image.fromarray((255 * whole).round().numpy().astype(np.uint8))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    seed(0)
    row(pictures()).save(folder / "style_transfer_large.jpg", quality=90, subsampling=0)
