"""Images made for the comparison are images to TensorFlow, and towers that decode them verify by default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from porting.port import main
from porting.samples.sample_images import SIZES, odd_images, sample_images

tf: Any = pytest.importorskip(
    "tensorflow", reason="TensorFlow is the witness of these tests: install the extra [parity]"
)


@pytest.mark.parametrize("op", ["DecodeJpeg", "DecodePng"])
def test_tensorflow_decodes_them(op: str) -> None:
    for image, (height, width) in zip(sample_images({op}), SIZES, strict=True):
        decoded = getattr(tf.io, {"DecodeJpeg": "decode_jpeg", "DecodePng": "decode_png"}[op])(image, channels=3)
        assert decoded.shape == (height, width, 3)
        assert len(np.unique(decoded.numpy())) > 8


@pytest.mark.parametrize("op", ["DecodeJpeg", "DecodePng"])
def test_odd_ones_too(op: str) -> None:
    shapes = [tf.io.decode_image(image).shape for image in odd_images({op})]
    assert shapes == [(1, 1, 3), (9, 6, 1), (40, 1, 3)]


@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "base64"])
def test_an_image_tower_verifies(encoded: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def pixels(data: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.decode_base64(data) if encoded else data, channels=3)
        return tf.image.resize(tf.cast(image, tf.float32) / 255.0, [4, 4])

    module = tf.Module()
    module.serve = tf.function(
        lambda jpeg: tf.reshape(tf.map_fn(pixels, jpeg, fn_output_signature=tf.float32), [-1, 48]),
        input_signature=[tf.TensorSpec([None], tf.string, "jpeg")],
    )
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    assert main(["--candidate", str(tmp_path / "model"), "-o", str(tmp_path / "out")]) == 0
    assert "ok   output_0: RMS error" in capsys.readouterr().out
