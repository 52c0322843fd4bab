"""Tiny convolutional networks, and the same functions with their channels in another order."""

import copy
import re

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

CLASSES, SIZE = 5, 32
NETS = {
    "resnet-basic": ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 2], "layer_type": "basic"}),
    "resnet": ("ResNet", {"embedding_size": 8, "hidden_sizes": [16, 24], "depths": [1, 2]}),
    "convnext": (
        "ConvNext",
        {"hidden_sizes": [8, 12], "depths": [1, 2], "num_stages": 2, "layer_scale_init_value": 0.5, "patch_size": 2},
    ),
    "swin": (
        "Swin",
        {"embed_dim": 12, "depths": [1, 2], "num_heads": [2, 4], "image_size": SIZE, "window_size": 4, "patch_size": 4},
    ),
    "mobilenet": (
        "MobileNetV2",
        {"depth_multiplier": 0.1, "expand_ratio": 2, "output_stride": 8, "finegrained_output": False},
    ),
    "efficientnet": (
        "EfficientNet",
        {
            "in_channels": [32, 32],
            "out_channels": [32, 320],
            "kernel_sizes": [3, 5],
            "strides": [1, 2],
            "num_block_repeats": [1, 2],
            "expand_ratios": [1, 2],
            "depthwise_padding": [],
            "width_coefficient": 0.05,
            "depth_coefficient": 1.0,
            "hidden_dim": 64,
        },
    ),
}


def net(name: str, seed: int = 0, **options) -> nn.Module:
    """A random network whose gains, biases and running statistics are of all sizes."""
    kind, own = NETS[name]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**own | options, num_labels=CLASSES)
    model = getattr(transformers, f"{kind}ForImageClassification")(config).double().eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if key.endswith(("weight", "var", "parameter")) else tensor.normal_(std=0.3)
            elif "bias_table" in key:
                tensor.normal_()
            elif tensor.ndim > 1 and "embed" not in key:
                tensor.normal_(std=(tensor[0].numel() / 2) ** -0.5)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.train().momentum = None  # of one batch, the mean of all
        model(pixel_values=pictures(8)[0])
    return model.eval()


def pictures(n: int, size: int = SIZE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    images = torch.randn(n, 3, size, size, generator=generator, dtype=torch.float64)
    return images, torch.randint(CLASSES, (n,), generator=generator)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(pixel_values=batch[0]).logits, batch[1], reduction="sum")


def twin(name: str, model: nn.Module, seed: int = 2) -> nn.Module:
    """The same function with the channels of every stream, and the units of every block, in another order."""
    torch.manual_seed(seed)
    orders: dict[str, Tensor] = {}
    other = copy.deepcopy(model)
    state = other.state_dict()
    for key, tensor in model.state_dict().items():
        for axis, (space, times) in enumerate(SPACES[name.split("-")[0]](key, state)):
            if space and axis < tensor.ndim:
                own = orders.setdefault(space, torch.randperm(tensor.shape[axis] // times))
                own = torch.cat([own + k * len(own) for k in range(times)])
                state[key].copy_(state[key].index_select(axis, own))
    return other


Axes = tuple[tuple[str, int], ...]
"""For every axis of a tensor, the name of its coordinates ("" for those that stay), and how often they come."""


def _axes(*names: str) -> Axes:
    return tuple((name, 1) for name in names)


def _resnet(key: str, state: dict[str, Tensor]) -> Axes:
    if "embedder" in key:
        return _axes("stem")
    found = re.search(r"stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d)|(shortcut))\.(\w+)", key)
    if not found:
        return _axes("", _stream(state, 1)) if key == "classifier.1.weight" else ()
    stage, layer, number, shortcut, kind = int(found[1]), int(found[2]), found[3], found[4], found[5]
    into = _stream(state, stage) if layer else _stream(state, stage - 1)
    last = max(int(n) for n in re.findall(rf"stages\.{stage}\.layers\.{layer}\.layer\.(\d)", " ".join(state)))
    block = f"{stage}.{layer}"
    out = _stream(state, stage) if shortcut or int(number) == last else f"{block}.{number}"
    before = into if shortcut or number == "0" else f"{block}.{int(number) - 1}"
    return _axes(out, before) if kind == "convolution" else _axes(out)


def _stream(state: dict[str, Tensor], stage: int) -> str:
    """The name of a stage's stream: that of the one before, if it has no shortcut of its own."""
    if stage < 0:
        return "stem"
    own = any(f"stages.{stage}.layers.0.shortcut" in key for key in state)
    return f"stage {stage}" if own else _stream(state, stage - 1)


def _convnext(key: str, state: dict[str, Tensor]) -> Axes:
    if "embeddings" in key:
        return _axes("0")
    if key.startswith("convnext.layernorm"):
        return _axes("1")
    if "downsampling_layer" in key:
        return _axes("0") if ".0." in key.split("downsampling_layer")[1] else _axes("1", "0")
    found = re.search(r"stages\.(\d)\.layers\.(\d)\.(\w+)", key)
    if not found:
        return _axes("", "1") if key == "classifier.weight" else ()
    units = f"{found[1]}.{found[2]} units"
    return _axes(*{"pwconv1": (units, found[1]), "pwconv2": (found[1], units)}.get(found[3], (found[1],)))


def _swin(key: str, state: dict[str, Tensor]) -> Axes:
    if "embeddings" in key:
        return _axes("0")
    if key.startswith("swin.layernorm"):
        return _axes("1")
    if "reduction" in key:
        return (("1", 1), ("0", 4))
    if "downsample.norm" in key:
        return (("0", 4),)
    found = re.search(r"layers\.(\d)\.blocks\.(\d)\.(.+)", key)
    if not found:
        return _axes("", "1") if key == "classifier.weight" else ()
    stream, block, rest = found[1], f"{found[1]}.{found[2]}", found[3]
    if "relative" in rest:
        return ()
    if re.search(r"[qk]_proj", rest):
        return _axes("", stream)
    if "v_proj" in rest:
        return _axes("", stream)
    units = {"fc1": (f"{block} units", stream), "fc2": (stream, f"{block} units"), "o_proj": (stream, "")}
    return _axes(*next((axes for part, axes in units.items() if part in rest), (stream,)))


def _mobilenet(key: str, state: dict[str, Tensor]) -> Axes:
    key = key.removeprefix("mobilenet_v2.")
    if key.startswith("conv_1x1"):
        return _axes("top", _after(state, 15))
    if key.startswith("conv_stem"):
        return _axes("in", "stem") if "reduce_1x1.convolution" in key else _axes("in" if "reduce" in key else "stem")
    found = re.match(r"layer\.(\d+)\.(\w+)\.(\w+)", key)
    if not found:
        return _axes("", "top") if key == "classifier.weight" else ()
    number, part, kind = int(found[1]), found[2], found[3]
    units, into, out = f"{number} units", _after(state, number - 1), _after(state, number)
    axes = {"expand_1x1": (units, into), "conv_3x3": (units, ""), "reduce_1x1": (out, units)}[part]
    return _axes(*axes) if kind == "convolution" else _axes(axes[0])


def _after(state: dict[str, Tensor], number: int) -> str:
    """The name of the stream after a block: that before it, if the block can add to it."""
    if number < 0:
        return "in"
    up, down = (state[f"mobilenet_v2.layer.{number}.{part}_1x1.convolution.weight"] for part in ("expand", "reduce"))
    return _after(state, number - 1) if len(down) == up.shape[1] else f"after {number}"


def _efficientnet(key: str, state: dict[str, Tensor]) -> Axes:
    key = key.removeprefix("efficientnet.")
    last = max(int(n) for n in re.findall(r"blocks\.(\d+)", " ".join(state)))
    if key.startswith("embeddings"):
        return _axes("stem")
    if key.startswith("encoder.top_conv"):
        return _axes("top", _block(state, last))
    if key.startswith("encoder.top_bn"):
        return _axes("top")
    found = re.match(r"encoder\.blocks\.(\d+)\.(\w+)\.(\w+)\.", key)
    if not found:
        return _axes("", "top") if key == "classifier.weight" else ()
    number, part, kind = int(found[1]), found[2], found[3]
    expands = any(f"blocks.{number}.expansion" in each for each in state)
    into = _block(state, number - 1)
    units, out = (f"{number} units" if expands else into), _block(state, number)
    if part == "squeeze_excite":
        squeezed = f"{number} squeezed"
        return _axes(*((squeezed, units) if kind == "reduce" else (units, squeezed)))
    axes = {"expansion": (units, into), "depthwise_conv": (units, ""), "projection": (out, units)}[part]
    return _axes(*axes) if kind.endswith("conv") else _axes(axes[0])


def _block(state: dict[str, Tensor], number: int) -> str:
    """As `_after`, for EfficientNet."""
    if number < 0:
        return "stem"
    parts = (
        f"efficientnet.encoder.blocks.{number}.{part}_conv.weight"
        for part in ("expansion.expand", "projection.project")
    )
    up, down = map(state.get, parts)
    return _block(state, number - 1) if up is not None and len(down) == up.shape[1] else f"after {number}"


SPACES = {
    "resnet": _resnet,
    "convnext": _convnext,
    "swin": _swin,
    "mobilenet": _mobilenet,
    "efficientnet": _efficientnet,
}
"""Name of a network → name of a tensor, all tensors → the coordinates of its axes."""
