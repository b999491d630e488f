"""Paint three style images: `python data/make_styles.py [FOLDER]` writes style_strokes.jpg, style_tiles.jpg, style_waves.jpg.

strokes: 9,000 short brush strokes along the flow of a few whirls, large ones first, blue to yellow (512 x 512, as all).
tiles: stained glass, the Voronoi cells of 260 points in strong colours with dark lead between them.
waves: marbled paper, the level lines of noise whose coordinates are themselves bent by noise.

Painted at twice the size and reduced. The random numbers are the same everywhere; JPEG's last bits depend on Pillow's version.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import zoom
from scipy.spatial import cKDTree

SIZE, PAINTED = 512, 1024


def colours(*codes):
    """Hex codes as rows of an array (n, 3) in [0, 255]."""
    return np.array([[int(code[k:k + 2], 16) for k in (0, 2, 4)] for code in codes], dtype=float)


def blend(palette, t):
    """Colours at t in [0, 1] along a palette (n, 3), interpolated: (..., 3)."""
    t = np.clip(t, 0, 1) * (len(palette) - 1)
    return np.stack([np.interp(t, np.arange(len(palette)), palette[:, k]) for k in range(3)], -1)


def smooth_noise(random, cells):
    """Smooth noise (PAINTED, PAINTED), about N(0, 1), with `cells` bumps along a side."""
    return zoom(random.normal(size=(cells + 3,) * 2), PAINTED / cells, order=3)[:PAINTED, :PAINTED]


def strokes(random):
    y, x = np.mgrid[:PAINTED, :PAINTED] / PAINTED
    field = np.stack([0.35 + 0 * x, 0.25 * np.sin(9 * x + 4 * y)])
    bright = 0.22 + 0.10 * smooth_noise(random, 5)
    for cx, cy, r, turn in ((0.28, 0.30, 0.16, 1), (0.72, 0.24, 0.11, -1), (0.62, 0.66, 0.20, 1), (0.16, 0.78, 0.12, -1)):
        near = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / r ** 2)
        field += turn * 3.5 * near * np.stack([cy - y, x - cx]) / r
        bright += 0.75 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (0.45 * r) ** 2)
    palette = colours("0c1b4d", "1d3f91", "3f78b5", "86b0c4", "d9cf8c", "f4c430", "fbe9a0")
    image = Image.new("RGB", (PAINTED, PAINTED), "#16305f")
    draw = ImageDraw.Draw(image)
    for k in range(9000):
        size = 11 if k < 2500 else 7 if k < 6000 else 4
        x0, y0 = random.uniform(0, PAINTED, 2)
        line, t = [(x0, y0)], None
        for _ in range(7):
            i, j = (int(np.clip(v, 0, PAINTED - 1)) for v in (line[-1][1], line[-1][0]))
            t = bright[i, j] if t is None else t
            u = field[:, i, j] / np.hypot(*field[:, i, j])
            line.append((line[-1][0] + 1.2 * size * u[0], line[-1][1] + 1.2 * size * u[1]))
        base = blend(palette, t + random.normal(0, 0.09))
        for shift in (-1, 0, 1):                # three bristles of slightly different brightness
            colour = tuple(int(v) for v in np.clip(base * random.uniform(0.82, 1.18), 0, 255))
            draw.line([(a + shift * size * 0.4, b + shift * size * 0.4) for a, b in line], fill=colour, width=size, joint="curve")
    return image


def tiles(random):
    points = random.uniform(0, PAINTED, (260, 2))
    grid = np.argwhere(np.ones((PAINTED // 8,) * 2)) * 8 + 4
    for _ in range(2):                          # Lloyd's steps make the cells even
        cell = cKDTree(points).query(grid)[1]
        members = np.maximum(np.bincount(cell, minlength=260), 1)
        points = np.stack([np.bincount(cell, xy, 260) / members for xy in grid.T], 1)
    distance, cell = cKDTree(points).query(np.argwhere(np.ones((PAINTED, PAINTED))), k=2)
    palette = colours("b3202a", "e2711d", "f2b134", "2f7d4f", "1f5fa8", "5b2a86", "17b0a5", "f4e4b8")
    paint = palette[random.randint(len(palette), size=260)] * random.uniform(0.8, 1.1, (260, 1))
    glass = 1.12 - 0.0045 * distance[:, 0] + 0.05 * smooth_noise(random, 60).ravel()
    image = paint[cell[:, 0]] * glass[:, None]
    lead = np.clip((distance[:, 1] - distance[:, 0] - 5) / 4, 0, 1)[:, None]
    image = lead * image + (1 - lead) * np.array([24, 22, 26])
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8).reshape(PAINTED, PAINTED, 3))


def waves(random):
    y, x = np.mgrid[:PAINTED, :PAINTED]
    bend = [40 * smooth_noise(random, 4) + 14 * smooth_noise(random, 11) for _ in range(2)]
    level = smooth_noise(random, 5) + 0.35 * smooth_noise(random, 12)
    i, j = (np.clip(a + b, 0, PAINTED - 1).astype(int) for a, b in zip((y, x), bend))
    phase = 3.2 * level[i, j] + y / 90
    band = 0.5 + 0.5 * np.sin(2 * np.pi * phase / 2)
    palette = colours("12263f", "1f5673", "3b9aa8", "f1e6c8", "e2a25b", "b5412c")
    image = blend(palette, band) * (1 - 0.45 * (np.abs(np.sin(np.pi * phase * 2)) < 0.12))[..., None]
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    for seed, paint in enumerate((strokes, tiles, waves)):
        image = paint(np.random.RandomState(seed)).resize((SIZE, SIZE), Image.LANCZOS)
        image.save(folder / f"style_{paint.__name__}.jpg", quality=88)
