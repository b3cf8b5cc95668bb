"""The native core is optional: where there is no compiler the package installs without it, and runs its Python code instead."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("torch_towers._native", ["torch_towers/_native.c"], optional=True)])
