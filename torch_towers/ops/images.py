"""Images: decoding, resizing and colours, with TensorFlow's arithmetic. Layout `[batch, height, width, channels]`."""

from __future__ import annotations

import functools
import io
import math
import zlib
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from torch_towers.errors import InputError
from torch_towers.graph.dtypes import FLOATS, Dtype
from torch_towers.graph.registry import F, Number, Spec, Strings, op
from torch_towers.kernels import images

_JPEG, _PNG, _GIF, _BMP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM"
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def _decoded(contents: Spec, *, channels: int, frames: str, dtype: str = "uint8", **attrs: Any) -> list[Spec]:
    size = (None, None, channels or None)
    return [(dtype, size if frames == "one" else (None, *size) if frames == "all" else None)]


@op(stage="host", infer=_decoded)
def decode_image(
    contents: Strings, *, channels: int, frames: Literal["one", "all", "file"], dtype: Dtype = "uint8", ratio: int = 1, fancy_upscaling: bool = True,
    fast_dct: bool = True,
) -> Tensor:  # fmt: skip
    """The pixels of a JPEG, PNG, GIF or BMP file: `[] bytes -> [height, width, channels]`, with `frames` first for
    animations.

    `channels` 0 keeps the file's channels. `frames`: "one" (the first of an animation), "all" (a still image is one
    frame) or "file" (an extra axis only for animations). float32 is scaled to [0, 1]. `ratio` (1, 2, 4, 8) downscales
    JPEGs while decoding. Needs the extra [images]. InputError: not an image, or truncated.
    Source: tf.raw_ops.DecodeJpeg, DecodePng, DecodeGif, DecodeBmp, DecodeImage.
    """
    data = contents.item() if contents.ndim == 0 else bytes(contents.reshape(-1)[0])
    if data.startswith(_JPEG):
        pixels = _jpeg(data, channels, ratio, fancy_upscaling, fast_dct)
    elif data.startswith(_PNG):
        pixels = _png(data, channels, dtype)
    elif data.startswith(_GIF):
        pixels = _gif(data, channels)
        pixels = pixels[0] if frames == "one" else pixels
    elif data.startswith(_BMP):
        pixels = _bmp(data, channels)
    else:
        raise InputError(
            f"unknown image format: {len(data)} bytes that begin with {data[:8]!r}; expected JPEG, PNG, GIF or BMP"
        )
    if frames == "all" and pixels.ndim == 3:
        pixels = pixels[None]
    result = torch.as_tensor(pixels if pixels.flags.writeable and pixels.flags.c_contiguous else np.array(pixels))
    if dtype == "float32":  # TensorFlow decodes PNG with 16 bits for this; the last bit of the float differs
        wide, largest = (
            (result.to(torch.float32) * 257, 65535) if data.startswith(_PNG) else (result.to(torch.float32), 255)
        )
        return wide * (1.0 / largest)
    return result


def _library(name: str) -> Any:
    try:
        if name == "simplejpeg":
            import simplejpeg

            return simplejpeg
        from PIL import Image

        return Image
    except ImportError as error:
        raise InputError(
            f"reading images needs {name}, which is not installed: pip install 'torch-towers[images]'"
        ) from error


_MOST_BYTES = 1 << 29  # of a JPEG's pixels, as in TensorFlow
_MOST_PIXELS = 512  # of a byte of a JPEG: a block of 8 x 8 pixels takes at least one bit


def _jpeg(data: bytes, channels: int, ratio: int, fancy_upscaling: bool, fast_dct: bool) -> Any:
    """Decodes with libjpeg-turbo, like TensorFlow. CMYK files become RGB by TensorFlow's formula."""
    library = _library("simplejpeg")
    try:
        height, width, space, _ = library.decode_jpeg_header(data)
        if height * width > _MOST_PIXELS * len(data):  # libjpeg would make up the rest
            raise InputError(
                f"a JPEG image of {len(data)} bytes is truncated: its header says {width} x {height} pixels"
            )
        inks = space in ("CMYK", "YCCK")
        target = "CMYK" if inks else "GRAY" if (channels or (1 if space.upper() == "GRAY" else 3)) == 1 else "RGB"
        if inks and channels == 1:
            raise InputError("a CMYK image cannot be read as one channel")
        if height * width // ratio**2 * {"GRAY": 1, "RGB": 3, "CMYK": 4}[target] >= _MOST_BYTES:
            raise InputError(f"a JPEG image of {width} x {height} pixels is too large")
        pixels = library.decode_jpeg(
            data, colorspace=target, fastdct=fast_dct, fastupsample=not fancy_upscaling, min_factor=ratio,
            min_height=-(-height // ratio), min_width=-(-width // ratio),
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"a JPEG image of {len(data)} bytes cannot be read: {error}") from error
    if not inks:
        return pixels
    wide = pixels.astype(np.int32)
    return (wide[..., 3:] * wide[..., :3] // 255).astype(np.uint8)


def _png(data: bytes, channels: int, dtype: str) -> Any:
    """Decodes with Pillow. A missing alpha channel gets the file's largest sample value before it is widened to 8 bits,
    as in TensorFlow."""
    image = _open(data)
    depth, kind = data[24], data[25]
    try:
        _check_rows(image, data, depth * _SAMPLES[kind])
    except zlib.error as error:
        raise InputError(f"a PNG image of {len(data)} bytes cannot be read: {error}") from error
    transparent = "transparency" in image.info
    own = {0: 1, 2: 3, 3: 4 if transparent else 3, 4: 2, 6: 4}[kind]
    wanted = channels or own
    if depth == 16 and (dtype == "float32" or (wanted == 1 and kind in (2, 6))):  # Pillow keeps only 8 of 16 bits
        raise InputError(
            "a PNG image of 16 bits cannot be read as float32, nor one of colors as gray; save it with 8 bits"
        )
    if image.mode.startswith("I"):  # 16-bit gray
        gray = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)[..., None]
    else:
        gray = None
    if wanted == 1:
        if kind in (0, 4):
            return gray if gray is not None else _array(image.convert("L"))
        return _gray(np.asarray(image.convert("RGB")).astype(np.int64))
    if gray is not None:
        pixels = gray.repeat(3, -1) if wanted >= 3 else gray
    else:
        pixels = _array(image.convert(_MODES[wanted]))
    if wanted in (2, 4) and (gray is not None or not (kind in (4, 6) or transparent)):
        alpha = np.full((*pixels.shape[:2], 1), 255 if depth == 16 else (1 << depth) - 1, np.uint8)
        pixels = np.concatenate([pixels[..., : wanted - 1], alpha], -1)
    return pixels


_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by the header's kind of color
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and steps of both, of each pass of an interlaced PNG."""


def _check_rows(image: Any, data: bytes, bits: int) -> None:
    """Refuses a PNG with fewer rows than its header says, as TensorFlow does. Pillow leaves them zero, so that only an
    image whose last row is zero must be decompressed again to know; an interlaced one always."""
    width, height = image.size
    interlaced = data[28] == 1
    if not interlaced and np.asarray(image.crop((0, height - 1, width, height))).any():
        return
    needed = 0
    for top, left, down, right in _PASSES if interlaced else ((0, 0, 1, 1),):
        rows, columns = len(range(top, height, down)), len(range(left, width, right))
        needed += rows * (1 + -(-columns * bits // 8)) if columns else 0
    stream, found, at = zlib.decompressobj(), 0, 8
    while at < len(data) and found < needed:
        length = int.from_bytes(data[at : at + 4], "big")
        piece = data[at + 8 : at + 8 + length] if data[at + 4 : at + 8] == b"IDAT" else b""
        while piece and found < needed:  # some at a time: a few bytes may unfold to gigabytes
            found += len(stream.decompress(piece, 1 << 20))
            piece = stream.unconsumed_tail
        at += 12 + length
    if found < needed:
        raise InputError(f"a PNG image of {len(data)} bytes is truncated: its header says {width} x {height} pixels")


def _gray(rgb: Any) -> Any:
    """libpng's RGB to gray with TensorFlow's weights, in 15-bit arithmetic."""
    red, green = 29900 * 32768 // 100000, 58700 * 32768 // 100000
    mixed = (red * rgb[..., 0] + green * rgb[..., 1] + (32768 - red - green) * rgb[..., 2]) >> 15
    return mixed.astype(np.uint8)[..., None]


def _gif(data: bytes, channels: int) -> Any:
    """All frames `[frames, height, width, 3]`. TensorFlow ignores frame disposal, so files that use it are refused."""
    if channels not in (0, 3):
        raise InputError(f"a GIF image has 3 channels, not {channels}")
    image = _open(data)
    frames: list[Any] = []
    for i in range(int(getattr(image, "n_frames", 1))):
        image.seek(i)
        partial = i == 0 and (image.tile and image.tile[0][1] != (0, 0, *image.size))
        if getattr(image, "disposal_method", 0) > 1 or partial or (i == 0 and "transparency" in image.info):
            raise InputError(
                "a GIF image whose frames are transparent, partial or disposed of is not supported; send its frames as PNG"
            )
        frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


def _bmp(data: bytes, channels: int) -> Any:
    """Decodes 8, 24 and 32 bits per pixel, without palette or compression, like TensorFlow."""
    if len(data) < 32:
        raise InputError(f"a BMP image of {len(data)} bytes is truncated")
    start, width, height = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (10, 18, 22))
    own = int.from_bytes(data[28:30], "little") // 8
    if own not in (1, 3, 4) or channels not in (0, own):
        raise InputError(f"a BMP image of {own} bytes per pixel cannot be read as {channels or '1, 3 or 4'} channels")
    rows, stride = abs(height), (own * width + 3) // 4 * 4
    if width <= 0 or rows == 0 or start < 0 or len(data) < start + stride * (rows - 1) + own * width:
        raise InputError(f"a BMP image of {len(data)} bytes is truncated: its header says {width} x {rows} pixels")
    padded = np.frombuffer(data[start : start + stride * rows].ljust(stride * rows, b"\0"), np.uint8).reshape(
        rows, stride
    )
    pixels = padded[:, : own * width].reshape(rows, width, own)
    if height > 0:
        pixels = pixels[::-1]
    return pixels[..., [2, 1, 0, 3][:own]] if own > 1 else pixels


def _open(data: bytes) -> Any:
    library = _library("pillow")
    try:
        image = library.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError, library.DecompressionBombError) as error:
        raise InputError(f"an image of {len(data)} bytes cannot be read: {error}") from error
    return image


def _array(image: Any) -> Any:
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


# -- sizes --------------------------------------------------------------------------------------------------------------


def _resized(keeps_dtype: bool) -> Callable[..., list[Spec]]:
    def infer(x: Spec, *rest: Any, **attrs: Any) -> list[Spec]:
        dtype = x[0] if keeps_dtype or x[0] in FLOATS else "float32"
        if x[1] is None:
            return [(dtype, (None,) * 4)]
        return [(dtype, (x[1][0], None, None, x[1][3]))]

    return infer


def _wide(function: F) -> F:
    """Computes in float32 or float64 and returns the image's float dtype; float32 for integers.

    Source coordinates are always computed in float32, as in TensorFlow.
    """

    @functools.wraps(function)
    def run(x: Tensor, *operands: Any, **attrs: Any) -> Tensor:
        y: Tensor = function(x.to(torch.promote_types(x.dtype, torch.float32)), *operands, **attrs)
        return y.to(x.dtype) if x.is_floating_point() else y

    return cast(F, run)


def _scale(size: int, target: int, align_corners: bool) -> float:
    return (size - 1) / (target - 1) if align_corners and target > 1 else size / target


def _positions(x: Tensor, size: int, target: int, align_corners: bool, half_pixel_centers: bool) -> Tensor:
    """The source coordinate of each output pixel, in float32 as in TensorFlow."""
    grid = torch.arange(target, dtype=torch.float32, device=x.device)
    scale = _scale(size, target, align_corners)
    return (grid + 0.5) * scale - 0.5 if half_pixel_centers else grid * scale


@op(infer=_resized(keeps_dtype=False))
@_wide
def resize_bilinear(x: Tensor, height: int, width: int, *, align_corners: bool, half_pixel_centers: bool) -> Tensor:
    """Bilinear interpolation: `[batch, h, w, dim] -> [batch, height, width, dim]`, a float. Source:
    tf.raw_ops.ResizeBilinear."""
    scales = _scale(x.shape[1], height, align_corners), _scale(x.shape[2], width, align_corners)
    resized = images.bilinear(x, (height, width), scales, half_pixel_centers)
    if resized is not None:
        return resized
    rows = _positions(x, x.shape[1], height, align_corners, half_pixel_centers)
    columns = _positions(x, x.shape[2], width, align_corners, half_pixel_centers)
    return _interpolate(x, rows, columns)


def _interpolate(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    top, bottom, down = _neighbours(rows, x.shape[1])
    left, right, along = _neighbours(columns, x.shape[2])
    above, below = x.index_select(1, top), x.index_select(1, bottom)
    along, down = along[:, None], down[:, None, None]
    upper = _mix(above.index_select(2, left), above.index_select(2, right), along)
    lower = _mix(below.index_select(2, left), below.index_select(2, right), along)
    return _mix(upper, lower, down)


def _neighbours(positions: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    floor = positions.floor()
    lower = floor.to(torch.int64).clamp(min=0)
    return lower, positions.ceil().to(torch.int64).clamp(max=size - 1), positions - floor


def _mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    return first + (second - first) * share


@op(infer=_resized(keeps_dtype=True))
def resize_nearest(x: Tensor, height: int, width: int, *, align_corners: bool, half_pixel_centers: bool) -> Tensor:
    """The nearest pixel: `[batch, h, w, dim] -> [batch, height, width, dim]`. Source:
    tf.raw_ops.ResizeNearestNeighbor."""
    for axis, target in ((1, height), (2, width)):
        size = x.shape[axis]
        grid = torch.arange(target, dtype=torch.float32, device=x.device)
        places = (grid + 0.5 if half_pixel_centers else grid) * _scale(size, target, align_corners)
        # roundf rounds halves away from zero, torch.round to even
        places = (places + 0.5).floor() if align_corners else places.floor()
        x = x.index_select(axis, places.to(torch.int64).clamp(0, size - 1))
    return x


@op(infer=_resized(keeps_dtype=False))
@_wide
def resize_bicubic(x: Tensor, height: int, width: int, *, align_corners: bool, half_pixel_centers: bool) -> Tensor:
    """Bicubic interpolation: `[batch, h, w, dim] -> [batch, height, width, dim]`, a float.

    The weights come from a table of 1024 steps: Keys' kernel with a = -0.5 and renormalized edges for half-pixel
    centres, with a = -0.75 otherwise. Source: tf.raw_ops.ResizeBicubic.
    """
    for axis, target in ((1, height), (2, width)):
        positions = _positions(x, x.shape[axis], target, align_corners, half_pixel_centers)
        indices, weights = _cubic(positions, x.shape[axis], half_pixel_centers)
        shape = [-1, *[1] * (3 - axis)]
        parts = [x.index_select(axis, indices[i]) * weights[i].reshape(shape) for i in range(4)]
        x = parts[0] + parts[1] + parts[2] + parts[3]
    return x


_STEPS = 1024


def _cubic(positions: Tensor, size: int, keys: bool) -> tuple[list[Tensor], list[Tensor]]:
    a = -0.5 if keys else -0.75
    near = torch.arange(_STEPS + 1, dtype=torch.float64, device=positions.device) / _STEPS
    far = near + 1.0
    inner = (((a + 2) * near - (a + 3)) * near * near + 1).to(torch.float32)
    outer = (((a * far - 5 * a) * far + 8 * a) * far - 4 * a).to(torch.float32)
    floor = positions.floor()
    offset = ((positions - floor) * _STEPS).round().to(torch.int64)
    start = floor.to(torch.int64)
    places = [start - 1, start, start + 1, start + 2]
    indices = [place.clamp(0, size - 1) for place in places]
    weights = [outer[offset], inner[offset], inner[_STEPS - offset], outer[_STEPS - offset]]
    if keys:
        inside = [
            torch.where(index == place, weight, 0.0)
            for index, place, weight in zip(indices, places, weights, strict=True)
        ]
        total = inside[0] + inside[1] + inside[2] + inside[3]
        weights = [weight * (1.0 / total) for weight in inside]
    return indices, weights


@op(infer=_resized(keeps_dtype=False))
@_wide
def resize_area(x: Tensor, height: int, width: int, *, align_corners: bool) -> Tensor:
    """The mean over the source area of each pixel: `[batch, h, w, dim] -> [batch, height, width, dim]`, a float.

    Source: tf.raw_ops.ResizeArea.
    """
    rows = _areas(x, x.shape[1], height, align_corners)
    columns = _areas(x, x.shape[2], width, align_corners)
    return torch.einsum("bhwc,yh,xw->byxc", x, rows.to(x.dtype), columns.to(x.dtype))


def _areas(x: Tensor, size: int, target: int, align_corners: bool) -> Tensor:
    """`[target, size]`: the weight of each input pixel in each output pixel. The last pixel extends beyond the edge."""
    scale = torch.tensor(_scale(size, target, align_corners), dtype=torch.float32, device=x.device)
    begin = torch.arange(target, dtype=torch.float32, device=x.device)[:, None] * scale
    end = (torch.arange(target, dtype=torch.float32, device=x.device)[:, None] + 1) * scale
    pixel = torch.arange(size + 2 + math.ceil(float(scale)), dtype=torch.float32, device=x.device)[None]
    cover = (torch.minimum(pixel + 1, end) - torch.maximum(pixel, begin)).clamp(min=0.0) / scale
    return torch.cat([cover[:, : size - 1], cover[:, size - 1 :].sum(1, keepdim=True)], 1)


_KERNELS: dict[str, tuple[float, Callable[[Tensor], Tensor]]] = {
    "lanczos1": (1.0, lambda x: _lanczos(x, 1.0)),
    "lanczos3": (3.0, lambda x: _lanczos(x, 3.0)),
    "lanczos5": (5.0, lambda x: _lanczos(x, 5.0)),
    "gaussian": (1.5, lambda x: torch.where(x >= 1.5, 0.0, torch.exp(-x * x / (2.0 * 0.5 * 0.5)))),
    "box": (1.0, lambda x: torch.where(x < 0.5, 1.0, torch.where(x == 0.5, 0.5, 0.0))),
    "triangle": (1.0, lambda x: torch.where(x < 1.0, 1.0 - x, 0.0)),
    "keyscubic": (
        2.0,
        lambda x: _piecewise(x, ((1.5 * x - 2.5) * x) * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0),
    ),
    "mitchellcubic": (
        2.0,
        lambda x: _piecewise(
            x,
            ((7.0 / 6.0 * x - 2.0) * x) * x + 16.0 / 18.0,
            ((-7.0 / 18.0 * x + 2.0) * x - 10.0 / 3.0) * x + 16.0 / 9.0,
        ),
    ),
}
"""Kernels by name: radius, and value at a nonnegative distance."""


def _piecewise(x: Tensor, near: Tensor, far: Tensor) -> Tensor:
    return torch.where(x >= 2.0, 0.0, torch.where(x >= 1.0, far, near))


def _lanczos(x: Tensor, radius: float) -> Tensor:
    pi = math.pi * x
    value = radius * torch.sin(pi) * torch.sin(pi / radius) / (pi * pi)
    return torch.where(x > radius, 0.0, torch.where(x <= 1e-3, 1.0, value))


@op(infer=_resized(keeps_dtype=False))
@_wide
def scale_and_translate(
    x: Tensor,
    height: int,
    width: int,
    scale: Tensor,
    translation: Tensor,
    *,
    kernel: Literal["lanczos1", "lanczos3", "lanczos5", "gaussian", "box", "triangle", "keyscubic", "mitchellcubic"],
    antialias: bool,
) -> Tensor:
    """Resampling with a kernel, widened for downscaling if `antialias`: `[batch, h, w, dim] -> [batch, height, width,
    dim]`, a float.

    `scale` and `translation` are [2]: of rows and of columns. Source: tf.raw_ops.ScaleAndTranslate.
    """
    rows = _spans(x, x.shape[1], height, scale[0], translation[0], kernel, antialias)
    columns = _spans(x, x.shape[2], width, scale[1], translation[1], kernel, antialias)
    return torch.einsum("bhwc,yh,xw->byxc", x, rows.to(x.dtype), columns.to(x.dtype))


def _spans(
    x: Tensor, size: int, target: int, scale: Tensor, translation: Tensor, kernel: str, antialias: bool
) -> Tensor:
    """`[target, size]`: the weight of each input pixel in each output pixel."""
    radius, value = _KERNELS[kernel]
    scale, translation = scale.to(torch.float32), translation.to(torch.float32)
    inverse = 1.0 / scale
    width = inverse.clamp(min=1.0) if antialias else torch.ones_like(inverse)
    sample = (torch.arange(target, dtype=torch.float32, device=x.device) + 0.5) * inverse - inverse * translation
    begin = (sample - width * radius - 0.5).ceil()
    end = (sample + width * radius - 0.5).floor()
    pixel = torch.arange(size, dtype=torch.float32, device=x.device)[None]
    inside = (pixel >= begin[:, None]) & (pixel <= end[:, None])
    weights = torch.where(inside, value(((pixel + 0.5 - sample[:, None]) / width).abs()), 0.0)
    total = weights.sum(1, keepdim=True)
    weights = torch.where(total.abs() >= 1000 * torch.finfo(torch.float32).tiny, weights / total, 0.0)
    return torch.where(((sample < 0) | (sample > size))[:, None], 0.0, weights)


def _cropped(x: Spec, boxes: Spec, places: Spec, height: Any, width: Any, **attrs: Any) -> list[Spec]:
    count = boxes[1][0] if boxes[1] else None
    return [(x[0] if x[0] in FLOATS else "float32", (count, None, None, x[1][3] if x[1] is not None else None))]


@op(infer=_cropped)
@_wide
def crop_and_resize(
    x: Tensor,
    boxes: Tensor,
    places: Tensor,
    height: int,
    width: int,
    *,
    method: Literal["bilinear", "nearest"],
    extrapolation_value: float,
) -> Tensor:
    """Crops boxes and resizes them: `[batch, h, w, dim], [n, 4], [n] -> [n, height, width, dim]`, a float.

    A box is (top, left, bottom, right), where 1 is the last pixel; pixels outside are `extrapolation_value`.
    Source: tf.raw_ops.CropAndResize.
    """
    rows, no_row = _crop(boxes[:, 0], boxes[:, 2], x.shape[1], height)
    columns, no_column = _crop(boxes[:, 1], boxes[:, 3], x.shape[2], width)
    batch = places.to(torch.int64)[:, None, None]
    if method == "nearest":
        y = x[batch, _rounded(rows, x.shape[1])[:, :, None], _rounded(columns, x.shape[2])[:, None, :]]
    else:
        top, bottom, down = (part[:, :, None] for part in _neighbours(rows.clamp(0, x.shape[1] - 1), x.shape[1]))
        left, right, along = (part[:, None, :] for part in _neighbours(columns.clamp(0, x.shape[2] - 1), x.shape[2]))
        along, down = along[..., None], down[..., None]
        y = _mix(
            _mix(x[batch, top, left], x[batch, top, right], along),
            _mix(x[batch, bottom, left], x[batch, bottom, right], along),
            down,
        )
    return torch.where((no_row[:, :, None] | no_column[:, None, :])[..., None], extrapolation_value, y)


def _crop(begin: Tensor, end: Tensor, size: int, target: int) -> tuple[Tensor, Tensor]:
    grid = torch.arange(target, dtype=torch.float32, device=begin.device)[None]
    begin, end = begin.to(torch.float32)[:, None], end.to(torch.float32)[:, None]
    if target > 1:
        positions = begin * (size - 1) + grid * ((end - begin) * (size - 1) / (target - 1))
    else:
        positions = 0.5 * (begin + end) * (size - 1)
    return positions, (positions < 0) | (positions > size - 1)


def _rounded(positions: Tensor, size: int) -> Tensor:
    return (positions.clamp(0, size - 1) + 0.5).floor().to(torch.int64)


# -- colours ------------------------------------------------------------------------------------------------------------


@op()
def adjust_contrast(x: Tensor, factor: Number) -> Tensor:
    """Scales each channel's distance from its mean by `factor`: `[..., h, w, dim] -> [..., h, w, dim]`. Source:
    tf.raw_ops.AdjustContrastv2."""
    mean = x.mean((-3, -2), keepdim=True)
    return (x - mean) * factor + mean


@op()
def rgb_to_hsv(x: Tensor) -> Tensor:
    """RGB to HSV, all in [0, 1]: `[..., 3] -> [..., 3]`. Source: tf.raw_ops.RGBToHSV."""
    red, green, blue = x.unbind(-1)
    value = x.amax(-1)
    span = value - x.amin(-1)
    saturation = torch.where(value > 0, span / value, 0.0)
    norm = 1.0 / (6.0 * span)
    hue = torch.where(
        red == value, norm * (green - blue),
        torch.where(green == value, norm * (blue - red) + 2.0 / 6.0, norm * (red - green) + 4.0 / 6.0),
    )  # fmt: skip
    hue = torch.where(span > 0, hue, 0.0)
    return torch.stack([torch.where(hue < 0, hue + 1.0, hue), saturation, value], -1)


@op()
def hsv_to_rgb(x: Tensor) -> Tensor:
    """HSV to RGB, all in [0, 1]: `[..., 3] -> [..., 3]`. Source: tf.raw_ops.HSVToRGB."""
    hue, saturation, value = x.unbind(-1)
    turn = hue * 6.0
    channels = torch.stack([(turn - 3.0).abs() - 1.0, 2.0 - (turn - 2.0).abs(), 2.0 - (turn - 4.0).abs()], -1).clamp(
        0.0, 1.0
    )
    return ((1.0 - saturation)[..., None] + saturation[..., None] * channels) * value[..., None]


@op()
def adjust_hue(x: Tensor, delta: Number) -> Tensor:
    """Rotates the hue by `delta` of the circle: `[..., 3] -> [..., 3]`. Source: tf.raw_ops.AdjustHue."""
    hue, saturation, value = rgb_to_hsv(x).unbind(-1)
    return hsv_to_rgb(torch.stack([torch.remainder(hue + delta, 1.0), saturation, value], -1))


@op()
def adjust_saturation(x: Tensor, factor: Number) -> Tensor:
    """Saturation times `factor`, clamped to [0, 1]: `[..., 3] -> [..., 3]`. Source: tf.raw_ops.AdjustSaturation."""
    hue, saturation, value = rgb_to_hsv(x).unbind(-1)
    return hsv_to_rgb(torch.stack([hue, (saturation * factor).clamp(0.0, 1.0), value], -1))
