"""Images: decoding, resizing, colours."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.conversion.values import Dimensions
from porting.converters.conv import spatial
from porting.errors import PortingError

Emit = ConvertingEmitter

# -- files --------------------------------------------------------------------------------------------------------------


@converter(
    "DecodeJpeg", refuses="try_recover_truncated and acceptable_fraction: libjpeg-turbo fills missing parts differently"
)
def decode_jpeg(
    t: Emit, contents: Any, *, channels: int = 0, ratio: int = 1, fancy_upscaling: bool = True, try_recover_truncated: bool = False,
    acceptable_fraction: float = 1.0, dct_method: str = "",
) -> Any:  # fmt: skip
    if try_recover_truncated or acceptable_fraction != 1.0:
        raise PortingError(
            f"{t.scope!r} repairs truncated images, which is not supported; set try_recover_truncated=False"
        )
    return t.decode_image(
        contents,
        channels=channels,
        frames="one",
        ratio=ratio,
        fancy_upscaling=fancy_upscaling,
        fast_dct=dct_method != "INTEGER_ACCURATE",
    )


@converter("DecodePng", refuses="dtype uint16")
def decode_png(t: Emit, contents: Any, *, channels: int = 0, dtype: str = "uint8") -> Any:
    return t.decode_image(contents, channels=channels, frames="one", dtype=_pixels(t, dtype))


@converter("DecodeGif")
def decode_gif(t: Emit, contents: Any) -> Any:
    return t.decode_image(contents, channels=3, frames="all")


@converter("DecodeBmp")
def decode_bmp(t: Emit, contents: Any, *, channels: int = 0) -> Any:
    return t.decode_image(contents, channels=channels, frames="one")


@converter("DecodeImage", refuses="dtype uint16")
def decode_image(
    t: Emit, contents: Any, *, channels: int = 0, dtype: str = "uint8", expand_animations: bool = True
) -> Any:
    frames = "file" if expand_animations else "one"
    return t.decode_image(contents, channels=channels, frames=frames, dtype=_pixels(t, dtype))


def _pixels(t: Emit, dtype: str) -> str:
    if dtype not in ("uint8", "float32"):
        raise PortingError(f"{t.scope!r} reads images as {dtype}, which is not supported, only uint8 and float32 are")
    return dtype


# -- sizes --------------------------------------------------------------------------------------------------------------


def _size(t: Emit, size: Any) -> tuple[Any, Any]:
    """Height and width, as numbers or run-time sizes."""
    if len(size) == 2:
        return size[0], size[1]
    return t.element(size[0], index=(0,)), t.element(size[0], index=(1,))


def _float32(t: Emit, x: Any) -> Any:
    """TensorFlow's kernels accept images of any dtype and return float32."""
    return x if x.dtype == "float32" else t.cast(x, dtype="float32")


@converter("ResizeBilinear")
def resize_bilinear(
    t: Emit, x: Any, size: Dimensions, *, align_corners: bool = False, half_pixel_centers: bool = False
) -> Any:
    return t.resize_bilinear(
        _float32(t, x), *_size(t, size), align_corners=align_corners, half_pixel_centers=half_pixel_centers
    )


@converter("ResizeNearestNeighbor")
def resize_nearest(
    t: Emit, x: Any, size: Dimensions, *, align_corners: bool = False, half_pixel_centers: bool = False
) -> Any:
    return t.resize_nearest(x, *_size(t, size), align_corners=align_corners, half_pixel_centers=half_pixel_centers)


@converter("ResizeBicubic")
def resize_bicubic(
    t: Emit, x: Any, size: Dimensions, *, align_corners: bool = False, half_pixel_centers: bool = False
) -> Any:
    return t.resize_bicubic(
        _float32(t, x), *_size(t, size), align_corners=align_corners, half_pixel_centers=half_pixel_centers
    )


@converter("ResizeArea")
def resize_area(t: Emit, x: Any, size: Dimensions, *, align_corners: bool = False) -> Any:
    return t.resize_area(_float32(t, x), *_size(t, size), align_corners=align_corners)


@converter("ScaleAndTranslate")
def scale_and_translate(
    t: Emit,
    x: Any,
    size: Dimensions,
    scale: Any,
    translation: Any,
    *,
    kernel_type: str = "lanczos3",
    antialias: bool = True,
) -> Any:
    return t.scale_and_translate(
        _float32(t, x), *_size(t, size), t.tensor(scale), t.tensor(translation), kernel=kernel_type, antialias=antialias
    )


@converter("CropAndResize")
def crop_and_resize(
    t: Emit,
    x: Any,
    boxes: Any,
    places: Any,
    size: Dimensions,
    *,
    method: str = "bilinear",
    extrapolation_value: float = 0.0,
) -> Any:
    height, width = _size(t, size)
    return t.crop_and_resize(
        _float32(t, x), boxes, places, height, width, method=method, extrapolation_value=extrapolation_value
    )


# -- colours ------------------------------------------------------------------------------------------------------------


@converter("AdjustContrastv2")
def adjust_contrast(t: Emit, x: Any, factor: Any) -> Any:
    return t.adjust_contrast(x, factor)


@converter("RGBToHSV")
def rgb_to_hsv(t: Emit, x: Any) -> Any:
    return t.rgb_to_hsv(x)


@converter("HSVToRGB")
def hsv_to_rgb(t: Emit, x: Any) -> Any:
    return t.hsv_to_rgb(x)


@converter("AdjustHue")
def adjust_hue(t: Emit, x: Any, delta: Any) -> Any:
    return t.adjust_hue(x, delta)


@converter("AdjustSaturation")
def adjust_saturation(t: Emit, x: Any, factor: Any) -> Any:
    return t.adjust_saturation(x, factor)


# -- patches ------------------------------------------------------------------------------------------------------------


@converter("ExtractImagePatches", refuses="windows over the batch or the channels")
def extract_patches(t: Emit, x: Any, *, ksizes: Any, strides: Any, rates: Any, padding: str) -> Any:
    return _patches(t, x, ksizes, strides, rates, padding)


@converter("ExtractVolumePatches", refuses="windows over the batch or the channels")
def extract_volume_patches(t: Emit, x: Any, *, ksizes: Any, strides: Any, padding: str) -> Any:
    return _patches(t, x, ksizes, strides, (1,) * len(ksizes), padding)


def _patches(t: Emit, x: Any, ksizes: Any, strides: Any, rates: Any, padding: str) -> Any:
    size, step, dilation = (
        spatial(tuple(values), len(ksizes) - 1, t.scope, what)
        for values, what in ((ksizes, "windows"), (strides, "strides"), (rates, "rates"))
    )
    return t.extract_patches(x, size=size, strides=step, dilations=dilation, padding=padding)
