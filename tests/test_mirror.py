"""Tests mirror the folders: every module has a test file of its own in the same place, or the table says which files test it, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONVERTERS, REWRITES, PARITY = "porting/converters", "porting/rewrites", "porting/parity"

OPS = {
    "activations": (f"{REWRITES}/test_activations.py", f"{CONVERTERS}/test_nn.py"),
    "array": (f"{CONVERTERS}/test_array.py",),
    "buckets": (f"{CONVERTERS}/test_buckets.py",),
    "checks": (f"{CONVERTERS}/test_basics.py",),
    "compression": (f"{CONVERTERS}/test_parsing.py",),
    "conv": (f"{CONVERTERS}/test_conv.py",),
    "counts": (f"{CONVERTERS}/test_counts.py",),
    "decompositions": (f"{CONVERTERS}/test_decompositions.py",),
    "dynamic": (f"{CONVERTERS}/test_dynamic.py",),
    "ids": (f"{REWRITES}/test_integer_ranges.py",),
    "images": (f"{CONVERTERS}/test_image.py",),
    "linalg": (f"{CONVERTERS}/test_nn.py", f"{CONVERTERS}/test_math.py"),
    "lists": (f"{CONVERTERS}/test_tensor_list.py",),
    "math": (f"{CONVERTERS}/test_math.py",),
    "named": ("torch_towers/source/test_module.py",),
    "nn": (f"{CONVERTERS}/test_nn.py",),
    "parsing": (f"{CONVERTERS}/test_parsing.py",),
    "patches": (f"{CONVERTERS}/test_image.py",),
    "quantization": (f"{CONVERTERS}/test_quantization.py",),
    "ragged": (f"{CONVERTERS}/test_ragged.py",),
    "re2": ("torch_towers/ops/test_regex.py",),
    "recurrent": (f"{CONVERTERS}/test_recurrent.py", f"{CONVERTERS}/test_block_cells.py"),
    "reductions": (f"{CONVERTERS}/test_math.py", "torch_towers/kernels/test_top_k.py"),
    "segments": (f"{CONVERTERS}/test_segment.py",),
    "signal": (f"{CONVERTERS}/test_signal.py",),
    "sizes": ("porting/conversion/test_shape_arithmetic.py",),
    "sparse": (f"{CONVERTERS}/test_sparse.py",),
    "special": (f"{CONVERTERS}/test_special.py",),
    "text": (f"{CONVERTERS}/test_text.py",),
    "text_segments": (f"{CONVERTERS}/test_text_segments.py",),
    "text_sentences": (f"{CONVERTERS}/test_text_sequences.py",),
    "text_sequences": (f"{CONVERTERS}/test_text_sequences.py",),
}
"""An op is what its converter writes: its tests are the converter's cases, which run TensorFlow's kernel beside it."""

LAYERS = {
    "activations": (f"{REWRITES}/test_activations.py",),
    "attention": (f"{REWRITES}/test_attention.py",),
    "buckets": (f"{REWRITES}/test_layers.py", f"{REWRITES}/test_lookups.py"),
    "conv": (f"{REWRITES}/test_conv.py",),
    "conv_lstm": (f"{REWRITES}/test_conv_lstm.py",),
    "embedding": (f"{REWRITES}/test_embedding.py", f"{REWRITES}/test_positions.py"),
    "fast_sentencepiece": (f"{CONVERTERS}/test_text_fast.py",),
    "images": (f"{REWRITES}/test_pools.py",),
    "lookups": (f"{REWRITES}/test_lookups.py",),
    "pools": (f"{REWRITES}/test_pools.py",),
    "sentencepiece": (f"{CONVERTERS}/test_text_sentencepiece.py",),
    "text": (f"{REWRITES}/test_text.py", "torch_towers/layers/test_text_pipeline.py"),
    "wordpiece": (f"{CONVERTERS}/test_text.py",),
}
"""A layer is what its rewrite lifts: its tests port what Keras writes, and compare the layer with TensorFlow."""

OTHERS = {
    # what a file of bytes says, compared with TensorFlow's readers by the ops that read it
    "torch_towers/formats/flatbuffer": (f"{CONVERTERS}/test_text_fast.py",),
    "torch_towers/formats/tensor_proto": (f"{CONVERTERS}/test_parsing.py",),
    "torch_towers/formats/tf_example": (f"{CONVERTERS}/test_parsing.py",),
    "torch_towers/formats/normalization": (f"{CONVERTERS}/test_text.py", "corpus/test_unicode_stress.py"),
    "torch_towers/formats/unicode_13": (f"{CONVERTERS}/test_text.py", "corpus/test_unicode_stress.py"),
    "torch_towers/formats/unicode_tables": (f"{CONVERTERS}/test_text.py", "corpus/test_unicode_stress.py"),
    # kernels, by the layers and ops that they are the fast way of
    "torch_towers/kernels/matmul": ("torch_towers/layers/test_linear.py", "torch_towers/kernels/test_top_k.py"),
    "torch_towers/kernels/encodings": ("torch_towers/kernels/test_native_ops.py",),
    "torch_towers/kernels/sparse": ("torch_towers/kernels/test_native_ops.py",),
    # names alone, by what is said of each
    "torch_towers/graph/elementwise": ("torch_towers/program/test_rows.py",),
    # the rules of a dataflow, by what they say of whole graphs
    "torch_towers/program/row_rules": ("torch_towers/program/test_rows.py", f"{REWRITES}/test_layers.py"),
    # an exception alone
    "torch_towers/bulk/errors": ("torch_towers/bulk/test_manifest.py",),
    # the stages of one generated file, which only together say whether it runs and gives the checkpoint's numbers
    **{
        f"torch_towers/source/{name}": ("torch_towers/source/test_module.py",)
        for name in ("attributes", "blocks", "check", "classes", "layers", "layout", "simplify", "spelling")
    },
    "torch_towers/source/trained": ("torch_towers/commands/test_source.py",),
    # commands that print what one module finds
    "torch_towers/commands/info": ("torch_towers/test_info.py",),
    "torch_towers/commands/verify": ("torch_towers/parity/test_verify.py",),
    **{
        f"torch_towers/source/{name}": ("torch_towers/source/test_to_transformers.py",) for name in ("architectures", "image_processor", "inputs", "texts", "tokenizer")
    },
    # converters that share their op's cases with a larger group
    "porting/converters/linalg": (f"{CONVERTERS}/test_nn.py", f"{CONVERTERS}/test_math.py"),
    "porting/converters/random": ("porting/flat_graph/test_dropout.py", "porting/flat_graph/test_effects.py"),
    # rewrites that fire on what Keras writes, in one SavedModel for all of them
    "porting/rewrites/buckets": (f"{REWRITES}/test_layers.py", f"{REWRITES}/test_lookups.py"),
    "porting/rewrites/einsum_dense": (f"{REWRITES}/test_einsum.py",),
    "porting/rewrites/images": (f"{REWRITES}/test_conv.py",),
    **{f"{REWRITES}/{name}": (f"{REWRITES}/test_pools.py",) for name in ("rescaling", "upsampling", "zero_padding")},
    # lifting, by what it lifts
    "porting/lifting/lift": ("porting/lifting/test_patterns.py", f"{REWRITES}/test_layers.py"),
    "porting/lifting/cell_layers": (f"{REWRITES}/test_recurrent.py", f"{REWRITES}/test_tensor_arrays.py"),
    "porting/lifting/cells": (f"{REWRITES}/test_recurrent.py", f"{REWRITES}/test_tensor_arrays.py"),
    "porting/lifting/steps": (f"{REWRITES}/test_steps.py", f"{REWRITES}/test_unrolled.py"),
    "porting/lifting/loops": (f"{REWRITES}/test_recurrent.py",),
    "porting/lifting/view": ("porting/lifting/test_editable.py", "porting/lifting/test_weights.py"),
    # the rules of an abstract interpretation, by the graphs that it interprets
    "porting/padding/rules": ("porting/padding/test_analysis.py",),
    "porting/padding/proof": ("porting/padding/test_analysis.py",),
    "porting/samples/domain_rules": ("porting/samples/test_domains.py",),
    "porting/samples/follower": ("porting/samples/test_domains.py",),
    "porting/samples/pools": ("porting/samples/test_samples.py", "porting/samples/test_domains.py"),
    # parity, by the comparison that it is part of
    "porting/parity/bounds": (f"{PARITY}/test_rounding.py", f"{PARITY}/test_report.py"),
    "porting/parity/reference": (f"{PARITY}/test_rounding.py",),
    "porting/parity/served_divergence": (f"{PARITY}/test_divergence.py", "porting/served/test_verification.py"),
    "porting/parity/tensorflow_process": (f"{PARITY}/test_oracle.py", f"{PARITY}/test_process.py"),
    "porting/report/figures": ("porting/report/test_page.py",),
    "porting/report/model_card": ("porting/test_command.py",),
    "porting/tower": ("porting/test_command.py", "porting/test_split.py"),
    "porting/frontends/datasets": ("porting/frontends/test_retrieval.py",),
    "porting/served/constants": ("porting/served/test_arithmetic.py",),
    "porting/served/draft": ("porting/served/test_arithmetic.py", "porting/served/test_onednn.py"),
    # the reader, by whole SavedModels
    "porting/saved_model/calls": ("porting/saved_model/test_graph.py",),
    "porting/saved_model/constants": ("porting/saved_model/test_decode.py",),
    "porting/saved_model/order": ("porting/saved_model/test_graph.py",),
    "porting/saved_model/op_definitions": ("porting/saved_model/test_node_checks.py",),
    "porting/saved_model/source": ("porting/saved_model/test_read.py",),
    "porting/saved_model/structure": ("porting/saved_model/test_restored.py",),
}  # fmt: skip

TESTED_BY = {
    **{f"torch_towers/ops/{name}": files for name, files in OPS.items()},
    **{f"torch_towers/layers/{name}": files for name, files in LAYERS.items()},
    **OTHERS,
}
"""Modules without a test file of their own -> the files that test them."""

MODULES = [
    path.relative_to(ROOT).with_suffix("").as_posix()
    for package in ("torch_towers", "porting")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.stem not in ("__init__", "__main__")
]


def own(module: str) -> Path:
    """The test file that mirrors a module."""
    return ROOT / "tests" / Path(module).parent / f"test_{Path(module).name}.py"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_tests(module: str) -> None:
    assert own(module).is_file() or module in TESTED_BY, f"write {own(module).relative_to(ROOT)}"


def test_the_table_is_true() -> None:
    """What it names is there, and nothing stands in it that has a file of its own."""
    assert set(TESTED_BY) <= set(MODULES)
    assert not [module for module in TESTED_BY if own(module).is_file()]
    assert not [file for files in TESTED_BY.values() for file in files if not (ROOT / "tests" / file).is_file()]
