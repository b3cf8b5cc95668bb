"""The native modules are optional: where there is no compiler the package installs without them, and runs its Python code instead.

`native/` is the core, `torch_towers._native`; every file `torch_towers/_name.c` is a module of its own.
"""

from glob import glob
from pathlib import Path

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension("torch_towers._native", sorted(glob("native/*.c")), depends=["native/core.h"], optional=True),
        *(
            Extension(f"torch_towers.{Path(source).stem}", [source], depends=glob("torch_towers/_*.h"), optional=True)
            for source in sorted(glob("torch_towers/_*.c"))
        ),
    ]
)
