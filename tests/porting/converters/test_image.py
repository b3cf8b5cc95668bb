"""Images against TensorFlow: decoding is bit-exact, resizing and colours within stated bounds."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from porting.errors import PortingError
from tests.witness import Case, case, check_case, check_function, port, run, tf, trace
from torch_towers.errors import InputError
from torch_towers.ops.images import decode_image

simplejpeg: Any = pytest.importorskip("simplejpeg", reason="the extra [images]")
Image: Any = pytest.importorskip("PIL.Image", reason="the extra [images]")

_RANDOM = np.random.default_rng(11)
PIXELS = _RANDOM.random((2, 7, 5, 3), np.float32)
BYTES = _RANDOM.integers(0, 256, (2, 6, 9, 3)).astype(np.uint8)


def picture(height: int, width: int, channels: int) -> np.ndarray:
    """Smooth noise, so that every DCT coefficient and every chroma subsampling matters."""
    coarse = _RANDOM.integers(0, 256, (height // 4 + 2, width // 4 + 2, 4)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse, "RGBA").resize((width, height), Image.BICUBIC))[..., :channels]


def jpeg(height: int, width: int, sampling: str, **options: Any) -> bytes:
    """A JPEG file; `sampling` may also be GRAY or CMYK."""
    file = io.BytesIO()
    if sampling in ("GRAY", "CMYK"):
        pixels = picture(height, width, 1 if sampling == "GRAY" else 4)
        image = (
            Image.fromarray(pixels[..., 0])
            if sampling == "GRAY"
            else Image.frombytes("CMYK", (width, height), pixels.tobytes())
        )
        image.save(file, "JPEG", quality=85, **options)
    elif options:
        Image.fromarray(picture(height, width, 3)).save(
            file, "JPEG", subsampling={"444": 0, "422": 1, "420": 2}[sampling], **options
        )
    else:
        return simplejpeg.encode_jpeg(np.ascontiguousarray(picture(height, width, 3)), 85, "RGB", sampling)
    return file.getvalue()


def png(pixels: np.ndarray | Any, **options: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, "PNG", **options)
    return file.getvalue()


def gif(*frames: np.ndarray) -> bytes:
    file = io.BytesIO()
    images = [Image.fromarray(frame).quantize(32) for frame in frames]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:])
    return file.getvalue()


def bmp(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


JPEGS = {
    **{f"{sampling} {h}x{w}": jpeg(h, w, sampling) for sampling in ("444", "422", "420", "440", "411") for h, w in ((37, 53), (1, 1), (16, 17))},
    **{f"progressive {sampling}": jpeg(37, 53, sampling, progressive=True) for sampling in ("444", "422", "420")},
    **{f"{kind} {h}x{w}": jpeg(h, w, kind) for kind in ("GRAY", "CMYK") for h, w in ((37, 53), (1, 1))},
}  # fmt: skip
_PALETTE = Image.fromarray(picture(9, 11, 3)).quantize(16)
_BLACK_WHITE = Image.fromarray(picture(9, 11, 1)[..., 0] > 100)
PNGS = {
    "gray": png(picture(9, 11, 1)[..., 0]), "color": png(picture(9, 11, 3)), "alpha": png(picture(9, 11, 4)),
    "gray and alpha": png(Image.fromarray(picture(9, 11, 4)).convert("LA")), "palette": png(_PALETTE), "palette of 4 bits": png(_PALETTE, bits=4),
    "palette with alpha": png(_PALETTE, transparency=bytes([0, 128, 255])), "palette with one clear color": png(_PALETTE, transparency=3),
    "1 bit": png(_BLACK_WHITE), "color with a clear one": png(picture(9, 11, 3), transparency=(1, 2, 3)),
    "gray with a clear one": png(picture(9, 11, 1)[..., 0], transparency=7),
    **{f"16 bits, {c} channels": tf.io.encode_png(_RANDOM.integers(0, 65536, (5, 7, c)).astype(np.uint16)).numpy() for c in (1, 2, 3, 4)},
}  # fmt: skip
FRAMES = [picture(6, 8, 3) for _ in range(3)]


def contents(files: dict[str, bytes]) -> list[dict[str, np.ndarray]]:
    return [{"file": np.array(data, object)} for data in files.values()]


@pytest.mark.parametrize("method", ["", "INTEGER_FAST", "INTEGER_ACCURATE"])
@pytest.mark.parametrize("fancy", [True, False])
@pytest.mark.parametrize("channels", [0, 3])
def test_jpeg(method: str, fancy: bool, channels: int) -> None:
    check_function(
        lambda file: tf.io.decode_jpeg(file, channels=channels, fancy_upscaling=fancy, dct_method=method),
        contents(JPEGS),
    )


def test_jpeg_as_gray() -> None:
    files = {name: data for name, data in JPEGS.items() if "CMYK" not in name}
    check_function(lambda file: tf.io.decode_jpeg(file, channels=1), contents(files))


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_shrunk_jpeg(ratio: int) -> None:
    files = {name: JPEGS[name] for name in ("444 37x53", "420 37x53", "420 1x1", "422 16x17", "GRAY 37x53")}
    check_function(lambda file: tf.io.decode_jpeg(file, ratio=ratio), contents(files))


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_png(channels: int) -> None:
    files = {
        name: data
        for name, data in PNGS.items()
        if channels != 1 or name not in ("16 bits, 3 channels", "16 bits, 4 channels")
    }
    check_function(lambda file: tf.io.decode_png(file, channels=channels), contents(files))
    if channels == 1:
        program = port(trace(lambda file: tf.io.decode_png(file, channels=1), contents(PNGS)[0]), ["file"])
        with pytest.raises(InputError, match="16 bits"):
            run(program, {"file": np.array(PNGS["16 bits, 3 channels"], object)})


_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def black_png(width: int, height: int, kind: int, depth: int, interlaced: int, left_out: int) -> bytes:
    """A PNG whose samples are all 0, without the last bytes of its rows."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    bits, size = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind] * depth, 0
    for top, left, down, right in _PASSES if interlaced else ((0, 0, 1, 1),):
        rows, columns = len(range(top, height, down)), len(range(left, width, right))
        size += rows * (1 + -(-columns * bits // 8)) if columns else 0
    packed = zlib.compress(bytes(size - min(left_out, size)))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    palette = chunk(b"PLTE", bytes(range(6))) if kind == 3 else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunk(b"IDAT", packed[:5]) + chunk(b"IDAT", packed[5:]) + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize("kind, depth", [(0, 8), (0, 1), (0, 4), (0, 16), (2, 8), (3, 8), (3, 2), (4, 8), (6, 8)])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_png_of_fewer_rows_than_its_header_says(kind: int, depth: int, interlaced: int) -> None:
    for width, height in ((1, 1), (3, 2), (5, 5), (9, 17), (2, 9), (1, 6)):
        for left_out in (0, 1, width + 1, -3):
            data = black_png(width, height, kind, depth, interlaced, left_out)
            found = np.array(data, object)
            if left_out > 0:
                with pytest.raises(tf.errors.InvalidArgumentError):
                    tf.io.decode_png(data)
                with pytest.raises(InputError, match=r"is truncated: its header says|cannot be read"):
                    decode_image(found, channels=0, frames="one")
            else:
                expected = tf.io.decode_png(data).numpy()
                assert (decode_image(found, channels=0, frames="one").numpy() == expected).all()


def test_any_format() -> None:
    files = {"jpeg": JPEGS["420 37x53"], "png": PNGS["color"], "bmp": bmp(picture(5, 7, 3)), "gif": gif(FRAMES[0])}
    for expand in (False, True):
        check_function(lambda file, expand=expand: tf.io.decode_image(file, expand_animations=expand), contents(files))
    check_function(lambda file: tf.io.decode_image(file, channels=3, dtype=tf.float32, expand_animations=False),
                   contents({"jpeg": JPEGS["420 37x53"], "png": PNGS["color"]}))  # fmt: skip
    check_function(lambda file: tf.io.decode_jpeg(file), contents({"png": PNGS["color"]}))
    check_function(lambda file: tf.io.decode_png(file), contents({"jpeg": JPEGS["420 37x53"]}))


def test_gif() -> None:
    check_function(lambda file: tf.io.decode_gif(file), contents({"three": gif(*FRAMES), "one": gif(FRAMES[0])}))
    check_function(lambda file: tf.io.decode_image(file), contents({"three": gif(*FRAMES)}))


@pytest.mark.parametrize("channels", [0, 3])
def test_bmp(channels: int) -> None:
    files = {"odd": bmp(picture(5, 7, 3)), "even": bmp(picture(4, 8, 3))}
    files["top down"] = files["even"][:22] + (-4).to_bytes(4, "little", signed=True) + files["even"][26:]
    if not channels:
        files |= {"alpha": bmp(picture(5, 7, 4)), "gray": bmp(picture(5, 7, 1)[..., 0])}
    check_function(lambda file: tf.io.decode_bmp(file, channels=channels), contents(files))


@pytest.mark.parametrize(
    "broken", [b"", b"hello", JPEGS["420 37x53"][:300], JPEGS["420 37x53"][:-2], PNGS["color"][:50], b"BM123", b"GIF8"]
)
def test_broken_files_are_refused(broken: bytes) -> None:
    """The port refuses a file that TensorFlow refuses, with its own error."""
    function = trace(lambda file: tf.io.decode_image(file, channels=3), {"file": np.array(b"", object)})
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(file=tf.constant(broken))
    with pytest.raises(InputError):
        run(port(function, ["file"]), {"file": np.array(broken, object)})


def test_repairing_is_refused() -> None:
    function = trace(lambda file: tf.io.decode_jpeg(file, try_recover_truncated=True), {"file": np.array(b"", object)})
    with pytest.raises(PortingError, match="repairs"):
        port(function, ["file"])


def test_serving_signature_of_images() -> None:
    """Bytes in, a batch of resized images out: how image models are exported."""

    def build(files: Any) -> Any:
        def one(file: Any) -> Any:
            image = tf.io.decode_image(file, channels=3, expand_animations=False)
            return tf.image.resize(tf.cast(image, tf.float32) / 255.0, [8, 8])

        return tf.map_fn(one, files, fn_output_signature=tf.float32)

    files = [JPEGS["420 37x53"], PNGS["color"], JPEGS["GRAY 37x53"]]
    check_function(build, [{"files": np.array(files[:n], object)} for n in (3, 1)], absolute=1e-6)


LERP = "three interpolations, each of which may round otherwise"
SUM = "a sum of up to 30 weighted pixels in another order"
HUE = "divisions and multiplications that may round otherwise"


def patch_cases() -> list[Case]:
    rows: list[Case] = []
    for dtype in (np.float32, np.float64, np.float16, np.uint8, np.int64):
        x = (PIXELS * 99).astype(dtype)
        for size, stride, rate in (
            ((1, 1), (1, 1), (1, 1)),
            ((2, 3), (2, 1), (1, 1)),
            ((2, 2), (3, 2), (2, 1)),
            ((3, 3), (1, 1), (1, 2)),
        ):
            for padding in ("SAME", "VALID"):
                attrs = {name: [1, *pair, 1] for name, pair in (("ksizes", size), ("strides", stride), ("rates", rate))}
                rows.append(
                    case(
                        "ExtractImagePatches",
                        images=x,
                        attrs={**attrs, "padding": padding},
                        label=f"{x.dtype} {size} {rate} {padding}",
                    )
                )
                if rate == (1, 1):
                    attrs = {"ksizes": [1, 2, *size, 1], "strides": [1, 1, *stride, 1], "padding": padding}
                    rows.append(
                        case(
                            "ExtractVolumePatches",
                            input=np.stack([x, x + 1, x], 1),
                            attrs=attrs,
                            label=f"{x.dtype} {size} {padding}",
                        )
                    )
    return rows


CASES = [
    *patch_cases(),
    *[
        case(op, "size", images=images, size=size, attrs={"align_corners": align, "half_pixel_centers": half}, label=f"{size} {align} {half}",
             **({} if op == "ResizeNearestNeighbor" else {"absolute": 1e-6 if images.dtype == np.float32 else 2e-4, "reason": LERP}))
        for op in ("ResizeBilinear", "ResizeNearestNeighbor", "ResizeBicubic")
        for images, size in ((PIXELS, [13, 4]), (PIXELS, [1, 1]), (BYTES, [3, 20]), (BYTES, [6, 9]))
        for align, half in ((False, False), (True, False), (False, True))
    ],
    *[
        case("ResizeArea", "size", images=images, size=size, attrs={"align_corners": align}, absolute=1e-6 if images is PIXELS else 2e-4, reason=SUM,
             label=f"{size} {align}")
        for images, size in ((PIXELS, [13, 4]), (PIXELS, [2, 2]), (BYTES, [3, 4]))
        for align in (False, True)
    ],
    *[
        case("ScaleAndTranslate", "size", "scale", "translation", images=images, size=size,
             scale=np.array([size[0] / images.shape[1], size[1] / images.shape[2]], np.float32), translation=np.array(translation, np.float32),
             attrs={"kernel_type": kernel, "antialias": antialias}, absolute=2e-6 if images is PIXELS else 5e-4, reason=SUM,
             label=f"{kernel} {size} {antialias} {translation}")
        for kernel in ("lanczos1", "lanczos3", "lanczos5", "gaussian", "box", "triangle", "keyscubic", "mitchellcubic")
        for images, size, antialias, translation in ((PIXELS, [13, 4], True, (0, 0)), (BYTES, [3, 20], False, (0, 0)), (PIXELS, [4, 3], True, (1.5, -0.5)))
    ],
    *[
        case("CropAndResize", "crop_size", image=PIXELS, boxes=np.array([[0, 0, 1, 1], [0.2, 0.9, 0.6, 0.1], [-0.5, 0.3, 1.5, 0.8]], np.float32),
             box_ind=np.array([0, 1, 1], np.int32), crop_size=size, attrs={"method": method, "extrapolation_value": extrapolation},
             absolute=1e-6, reason=LERP, batched=False, label=f"{method} {size}")
        for method, extrapolation in (("bilinear", 0.0), ("nearest", -1.5))
        for size in ([3, 4], [1, 1], [9, 2])
    ],
    *[case("AdjustContrastv2", images=PIXELS, contrast_factor=np.array(f, np.float32), absolute=1e-6, reason="the mean of 35 pixels", label=str(f)) for f in (0.0, 0.5, 3.0)],
    case("RGBToHSV", images=PIXELS, absolute=5e-7, reason=HUE),
    case("RGBToHSV", images=np.array([[[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.2], [1, 0, 0.5]]], np.float32), absolute=5e-7, reason=HUE, label="corners"),
    case("HSVToRGB", images=PIXELS, absolute=5e-7, reason=HUE),
    case("HSVToRGB", images=PIXELS.astype(np.float64), absolute=1e-14, reason=HUE, label="float64"),
    *[case("AdjustHue", images=PIXELS, delta=np.array(d, np.float32), absolute=2e-6, reason=HUE, label=str(d)) for d in (0.0, 0.3, -0.7)],
    *[case("AdjustSaturation", images=PIXELS, scale=np.array(f, np.float32), absolute=2e-6, reason=HUE, label=str(f)) for f in (0.0, 0.5, 4.0)],
]  # fmt: skip
COVERED = {"DecodeJpeg", "DecodePng", "DecodeGif", "DecodeBmp", "DecodeImage"}


@pytest.mark.parametrize("row", CASES, ids=str)
def test_op(row: Case) -> None:
    check_case(row)
