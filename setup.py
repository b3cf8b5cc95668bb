"""The native modules are optional: where there is no compiler the package installs without them, and runs its Python code instead."""

from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "torch_towers.kernels._native",
            sorted(glob("native/core/*.c")),
            depends=["native/core/core.h"],
            optional=True,
        ),
        Extension("torch_towers.kernels._scores", ["native/scores.c"], depends=["native/scores.h"], optional=True),
    ]
)
