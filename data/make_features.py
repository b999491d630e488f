"""Train the small feature network: `python data/make_features.py [FOLDER]` writes features.safetensors and features.json.

The network is VGG-19 (Simonyan and Zisserman 2015) up to conv5_1 with a quarter of the channels (16, 32, 64, 128, 128) and
average instead of max pooling, as Gatys, Ecker and Bethge (2016) use it. While it trains, every convolution is followed by
batch normalisation, which is folded into weights and biases afterwards; then each layer is scaled so that its mean activation
on the training patches is 1 (as Gatys et al. did; with ReLU this changes no decision), so the file holds convolutions only.

Task: which class does a patch of 64 x 64 pixels come from? Textures and small photos are one class each; a photo of a scene
is cut into 2 x 2 tiles, one class each. Patches are squares of 40 to 160 pixels (random scale), resized to 64, flipped,
with random gain and offset per colour channel and, for one in five, grey. They never leave the upper three quarters of
their class; the lower quarter is kept for the test. Photos in `HELD_OUT` are not used at all: notebooks report on them.

On 2 busy CPU cores this takes about half an hour. Another machine or torch version gives other weights of the same quality.
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from helpers import data  # noqa: E402

HELD_OUT = ("camera", "cat", "coffee", "flower", "strokes", "tiles", "waves")
SCENES = ("admiral", "astronaut", "motorcycle", "rocket", "temple")
CONVOLUTIONS = (2, 2, 4, 4, 1)                  # per block, of VGG-19 up to conv5_1
WIDTHS = (16, 32, 64, 128, 128)
PATCH, BATCH, STEPS, LR, SEED = 64, 64, 5000, 4e-3, 0
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))     # of ImageNet


def classes():
    """The classes as {name: (3, H, W) image}: whole textures, quarters of scenes."""
    images = {}
    for name in sorted(set(data.PHOTOS) - set(HELD_OUT)):
        x = data.photo(name)
        if name == "retina":                    # mostly black outside the eye
            x = x[:, 300:1100, 300:1100]
        if name not in SCENES:
            images[name] = x
            continue
        h, w = x.shape[1] // 2, x.shape[2] // 2
        for k in range(4):
            images[f"{name} {k}"] = x[:, k // 2 * h:k // 2 * h + h, k % 2 * w:k % 2 * w + w]
    return images


def split(image):
    """Upper three quarters for training, lower quarter for the test."""
    cut = image.shape[1] * 3 // 4
    return image[:, :cut], image[:, cut:]


def batch(images, generator, jitter=True):
    """A random batch of jittered patches (BATCH, 3, PATCH, PATCH) and its classes (BATCH,)."""
    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    y, x = torch.randint(len(images), (BATCH,), generator=generator), []
    for k in y.tolist():
        _, H, W = images[k].shape
        s = int(min(H, W, 40 * 4 ** rand(1).item()))
        top, left = (int(rand(1).item() * (n - s + 1)) for n in (H, W))
        patch = images[k][None, :, top:top + s, left:left + s]
        x.append(F.interpolate(patch, size=(PATCH, PATCH), mode="bilinear", antialias=True, align_corners=False))
    x = torch.cat(x)
    if jitter:
        x = torch.where(rand(BATCH, 1, 1, 1) < 0.5, x.flip(3), x)
        x = torch.where(rand(BATCH, 1, 1, 1) < 0.2, x.mean(1, keepdim=True).expand_as(x), x)
        x = (x - 0.5) * (0.6 + 0.8 * rand(BATCH, 1, 1, 1)) * (0.8 + 0.4 * rand(BATCH, 3, 1, 1)) + 0.5
        x = x + 0.3 * (rand(BATCH, 1, 1, 1) - 0.5) + 0.1 * (rand(BATCH, 3, 1, 1) - 0.5)
    return (x - MEAN) / STD, y


def network(n_classes):
    """The training network: convolution, batch normalisation, ReLU; average pooling between blocks; linear head."""
    layers, c = [], 3
    for n, width in zip(CONVOLUTIONS, WIDTHS):
        if layers:
            layers.append(nn.AvgPool2d(2))
        for _ in range(n):
            layers += [nn.Conv2d(c, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            c = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(c, n_classes))


@torch.no_grad()
def folded(net, x):
    """Weights with normalisation folded in, under VGG-19's names; every layer's mean activation on the batch x is 1."""
    weights, scale, index = {}, 1.0, 0
    for k, layer in enumerate(net):
        if isinstance(layer, nn.AvgPool2d):
            x, index = layer(x), index + 1
        if not isinstance(layer, nn.Conv2d):
            continue
        norm = net[k + 1]
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        w, b = layer.weight * gain[:, None, None, None] / scale, norm.bias - norm.running_mean * gain
        x = F.relu(F.conv2d(x, w, b, padding=1))
        scale = 1 / x.mean()
        x = x * scale
        weights[f"features.{index}.weight"], weights[f"features.{index}.bias"] = w * scale, b * scale
        index += 2
    return weights


@torch.no_grad()
def accuracy(net, images, n_batches, generator):
    """Share of test patches, without jitter of colour, whose class (and whose photo) is found, and the number of patches."""
    photo = [name.split()[0] for name in images]
    parts, right, right_photo = [split(x)[1] for x in images.values()], 0, 0
    for _ in range(n_batches):
        x, y = batch(parts, generator, jitter=False)
        guess = net.eval()(x).argmax(1)
        right += (guess == y).sum().item()
        right_photo += sum(photo[a] == photo[b] for a, b in zip(guess.tolist(), y.tolist()))
    n = n_batches * BATCH
    return right / n, right_photo / n, n


def main(folder, steps=STEPS):
    from safetensors.torch import save_file

    torch.manual_seed(SEED)
    generator, images = torch.Generator().manual_seed(SEED), classes()
    parts, net, start = [split(x)[0] for x in images.values()], network(len(images)), time.time()
    optimiser = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=steps)
    for step in range(1, steps + 1):
        x, y = batch(parts, generator)
        loss = F.cross_entropy(net.train()(x), y, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % (steps // 20) == 0:
            right, right_photo, _ = accuracy(net, images, 8, torch.Generator().manual_seed(1))
            print(f"{step:6,} steps, {time.time() - start:5.0f} s: loss {loss.item():.3f}, "
                  f"test {right:.3f} ({right_photo:.3f} of photos)", flush=True)
    right, right_photo, n = accuracy(net, images, 100, torch.Generator().manual_seed(2))
    weights = folded(net.eval(), torch.cat([batch(parts, generator)[0] for _ in range(8)]))
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "features.safetensors")
    about = {"test_accuracy": right, "test_accuracy_of_photo": right_photo, "test_patches": n, "chance": 1 / len(images),
             "classes": list(images), "held_out": HELD_OUT, "steps": steps, "batch": BATCH,
             "seconds": round(time.time() - start), "torch": torch.__version__.split("+")[0]}
    (folder / "features.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(about))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "data", *map(int, sys.argv[2:3]))
