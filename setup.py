"""The native modules are optional: where there is no compiler the package installs without them, and runs its Python code instead."""

from glob import glob
from pathlib import Path
from zlib import crc32

from setuptools import Extension, setup


def native(name: str, files: str) -> Extension:
    """A native module of the C files among `files`; it holds their checksum, as `torch_towers.kernels.native` computes it."""
    found = sorted(glob(files))
    checksum = crc32(b"".join(Path(file).read_bytes() for file in found))
    return Extension(
        f"torch_towers.kernels.{name}",
        [file for file in found if file.endswith(".c")],
        depends=[file for file in found if file.endswith(".h")],
        define_macros=[("SOURCES", f"{checksum}U")],
        optional=True,
    )


setup(
    ext_modules=[
        native("_native", "native/core/*.[ch]"),
        native("_scores", "native/scores.[ch]"),
        native("_layers", "native/layers.[ch]"),
    ]
)
