#include "core.h"

static PyMethodDef methods[] = {
    {"find", find, METH_VARARGS, "find(words, keys, missing, out) -> rows or None"},
    {"find_integers", find_integers, METH_VARARGS, "find_integers(words, keys, missing, out) -> rows or None"},
    {"text_ids", text_ids, METH_VARARGS, "text_ids(words, bytes, first, last, missing, pad, texts, out, widths, separator, tally, once) -> (rows, unknown words) or None"},
    {"encode", encode, METH_VARARGS, "encode(strings, out) -> bool"},
    {"numbers", numbers, METH_VARARGS, "numbers(list, out) -> bool"},
    {"lookup", lookup, METH_VARARGS, "lookup(ids, keys, missing, out) -> bool"},
    {"examples", examples, METH_VARARGS, "examples(serialized, columns) -> (lengths, values) of each uneven column, or None"},
    {"ngrams", ngrams, METH_VARARGS, "ngrams(values, splits, widths, separator, left, right, pads, keeps_short, ends) -> list or None"},
    {"replace_classes", replace_classes, METH_VARARGS, "replace_classes(texts, classes, before, after, keeps) -> list"},
    {"split_classes", split_classes, METH_VARARGS, "split_classes(texts, classes, kept) -> (tokens, starts, limits, splits, rows)"},
    {"decode", decode, METH_VARARGS, "decode(texts) -> (codes, starts, splits) or None"},
    {"encode_codes", encode_codes, METH_VARARGS, "encode_codes(codes, splits) -> list or None"},
    {"hash_integers", hash_integers, METH_VARARGS, "hash_integers(values, key, out) -> bool"},
    {"fill_rows", fill_rows, METH_VARARGS, "fill_rows(indices, rank, out, position, empty) -> elements, or -1"},
    {"chunks", chunks, METH_VARARGS, "chunks(ids, chunks, owners, lengths) -> chunks, or -1"},
    {"distinct", distinct, METH_VARARGS, "distinct(given, values, inverse, counts) -> how many"},
    {"bags", bags, METH_VARARGS, "bags(indices, rank, values, ids, chunks, owners, lengths) -> (ids, chunks) or None"},
    {"segment_sums", segment_sums, METH_VARARGS, "segment_sums(data, rows, lengths, by, out) -> bool"},
    {"histogram", histogram, METH_VARARGS, "histogram(values, splits, once, out) -> bool"},
    {"split", split, METH_VARARGS, "split(texts, marks, how, skips) -> (parts, indices, longest) or None"},
    {"ascii_case", ascii_case, METH_VARARGS, "ascii_case(texts, upper) -> list"},
    {"cut", cut, METH_VARARGS, "cut(texts, positions, lengths, characters) -> list or None"},
    {"read_numbers", read_numbers, METH_VARARGS, "read_numbers(texts, floats, out) -> bool"},
    {"places", places, METH_VARARGS, "places(indices, sizes, out) -> 2 ascending, 1 inside, 0 outside"},
    {"below", below, METH_VARARGS, "below(numbers, limit) -> bool"},
    {"spread", spread, METH_VARARGS, "spread(lengths, out) -> longest row, or -1"},
    {"one_hot", one_hot, METH_VARARGS, "one_hot(ids, on, off, out) -> bool"},
    {"resize_bilinear", resize_bilinear, METH_VARARGS, "resize_bilinear(images, out, shape, sizes, scales, half) -> bool"},
    {"pad_rows", pad_rows, METH_VARARGS, "pad_rows(values, lengths, pad, out) -> bool"},
    {"buckets", buckets, METH_VARARGS, "buckets(values, edges, flush, out)"},
    {"cross", cross, METH_VARARGS, "cross(columns, rows, start, buckets) -> (indices, buckets, longest row)"},
    {"hashes", hashes, METH_VARARGS, "hashes(strings, key, out) -> bool"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "torch_towers.kernels._native", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    if (start_words() < 0 || PyType_Ready(&WordsType) < 0) return NULL;
    PyObject *core = PyModule_Create(&module);
    if (core != NULL && PyModule_AddObjectRef(core, "Words", (PyObject *)&WordsType) < 0) Py_CLEAR(core);
    if (core != NULL && PyModule_AddObject(core, "sources", PyLong_FromUnsignedLong(SOURCES)) < 0) Py_CLEAR(core);
    return core;
}
