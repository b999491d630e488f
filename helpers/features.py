"""The frozen feature network that losses and distances between pictures are computed in."""

import torch
from torch import nn

from . import data

LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv3_4",
          "conv4_1", "conv4_2", "conv4_3", "conv4_4", "conv5_1")
PLAN = (1, 1, 0, 2, 2, 0, 4, 4, 4, 4, 0, 8, 8, 8, 8, 0, 8)            # channels / width of each layer; 0: pooling
CALIBRATION = ("admiral", "astronaut", "grass", "motorcycle", "retina", "temple")


class FeatureNet(nn.Module):
    """VGG-19 up to conv5_1 with average pooling; width: channels of conv1_1 (64 as published, 16 bundled)."""

    def __init__(self, width=16):
        super().__init__()
        self.features, c = nn.Sequential(), 3
        for k in PLAN:
            self.features.extend([nn.Conv2d(c, k * width, 3, padding=1), nn.ReLU()] if k else [nn.AvgPool2d(2)])
            c = k * width or c
        for name, v in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):      # of ImageNet's colours
            self.register_buffer(name, torch.tensor(v).view(3, 1, 1), persistent=False)

    def forward(self, x, layers=LAYERS):
        """Activations after ReLU: dict layer -> (B, C_l, H_l, W_l), H_l = H / 2 after each pooling.

        x: images (B, 3, H, W) or (3, H, W) in [0, 1], H, W >= 16, of the network's device and float dtype.
        layers: the names wanted, or one name: all layers up to it. What lies behind the last of them is not computed.
        Raises ValueError for another shape or dtype, an unknown layer, or none.
        """
        wanted = set(LAYERS[:LAYERS.index(layers) + 1] if isinstance(layers, str) and layers in LAYERS
                     else [layers] if isinstance(layers, str) else layers)
        if not wanted or not wanted <= set(LAYERS):
            raise ValueError(f"unknown layer in {layers!r}; choose from {', '.join(LAYERS)}")
        if x.ndim not in (3, 4) or x.shape[-3] != 3 or min(x.shape[-2:]) < 16:
            raise ValueError("expected RGB images (B, 3, H, W) of at least 16 x 16 pixels (conv5_1 lies behind four poolings), "
                             f"got {tuple(x.shape)}")
        if x.dtype != self.mean.dtype:
            raise ValueError(f"expected images of {self.mean.dtype}, as the network is, in [0, 1]; got {x.dtype} "
                             "(bytes: divide by 255; float64: net.double())")
        h, maps, passed = ((x if x.ndim == 4 else x[None]) - self.mean) / self.std, {}, iter(LAYERS)
        for layer in self.features:
            h = layer(h)
            if isinstance(layer, nn.ReLU) and (name := next(passed)) in wanted:
                maps[name] = h
                if len(maps) == len(wanted):
                    return maps

    @torch.no_grad()
    def calibrate(self, images):
        """Rescale every layer in place so that its mean activation on images (B, 3, H, W) is 1; returns the network.

        Each activation changes by one factor per layer (Gatys et al. 2016): W *= g_below / g, b /= g, where g is the mean.
        Raises ValueError where a layer is silent (or not finite) on the images.
        """
        h, below = (images - self.mean) / self.std, 1.0
        for layer, after in zip(self.features, [*self.features][1:] + [None]):
            if isinstance(layer, nn.ReLU):
                continue
            h = layer(h)
            if isinstance(layer, nn.Conv2d):
                h = after(h)
                gain = h.mean().item()
                if not 0 < gain < float("inf"):
                    raise ValueError(f"a layer answers these images with mean activation {gain}: it cannot be scaled to 1")
                layer.weight *= below / gain
                layer.bias /= gain
                below = gain
        return self


def feature_net(kind="bundled"):
    """A frozen, calibrated `FeatureNet` on the CPU, float32, in eval mode: mean activation 1 per layer on six photos.

    kind: "bundled": the small network that `data/make_features.py` trained (widths 16 to 128); "vgg19": the ImageNet
        network (widths 64 to 512), looked for and downloaded like the real data sets (550 MB); "random": the small one,
        never trained (weights N(0, 2 / fan_in), no bias, the same on every machine).
    net(x, layers) gives the activations, see `FeatureNet.forward`; move it by net.to(device).
    Raises ValueError for another kind, DataError if VGG-19's weights cannot be had.
    """
    if kind not in ("bundled", "vgg19", "random"):
        raise ValueError(f'the kind of a feature network is "bundled", "vgg19" or "random", got {kind!r}')
    with torch.random.fork_rng(devices=[]):                # the reader's random numbers stay as they are
        net = FeatureNet(64 if kind == "vgg19" else 16)
    if kind == "random":
        generator = torch.Generator().manual_seed(0)
        weights = {name: torch.randn(v.shape, generator=generator) * (2 / v[0].numel()) ** 0.5 if v.ndim > 1 else 0 * v
                   for name, v in net.state_dict().items()}
    else:
        weights = data.feature_weights(kind)
    net.load_state_dict({name: weights[name] for name in net.state_dict()})
    net.requires_grad_(False).eval()
    return net.calibrate(torch.stack([data.photo(name, 128) for name in CALIBRATION]))
