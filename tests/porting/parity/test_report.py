from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from porting.parity.report import ParityReport, compare

RNG = np.random.default_rng(0)
EXACT = RNG.normal(size=(50, 8))


def rounded(scale: float = 1.0) -> np.ndarray[Any, Any]:
    """The exact values with rounding errors of about `scale` * 20 ulp."""
    noise = RNG.normal(size=EXACT.shape) * 20 * scale * np.spacing(np.abs(EXACT).astype(np.float32))
    return (EXACT + noise).astype(np.float32)


def report(ours: Any, theirs: Any, exact: Any = EXACT) -> ParityReport:
    return compare([{"y": ours}], [{"y": theirs}], [{"y": exact}], compared_with="a test")


def test_rounding_as_large_as_tensorflows_passes() -> None:
    found = report(rounded(), rounded())
    assert found.passed
    assert found.outputs["y"].ratio == pytest.approx(1.0, abs=0.2)


def test_larger_errors_than_tensorflows_fail() -> None:
    found = report(rounded(2.0), rounded())
    assert not found.passed
    assert "times TensorFlow's, more than 1.25" in found.outputs["y"].reason


def test_a_wrong_formula_fails_though_the_port_agrees_with_its_own_float64_run() -> None:
    found = report((EXACT * 1.001).astype(np.float32), rounded(), EXACT * 1.001)
    assert not found.passed
    assert "not rounding" in found.outputs["y"].reason


def test_rounding_that_the_graph_magnifies_passes_where_port_and_tensorflow_agree() -> None:
    far = (EXACT * 1.0001).astype(np.float32)
    assert report(far, far + np.spacing(np.abs(far))).passed
    assert not report(far, (EXACT * 0.9999).astype(np.float32)).passed


def test_a_few_ulp_pass_where_tensorflow_is_exact() -> None:
    exact = EXACT.astype(np.float32)
    assert report(exact + np.spacing(np.abs(exact)), exact, exact).passed
    assert not report(exact + 40 * np.spacing(np.abs(exact)), exact, exact).passed


def test_a_number_of_tensorflows_must_be_a_number_in_the_port() -> None:
    ours, exact = rounded(), EXACT.copy()
    ours[3, 3] = exact[3, 3] = np.nan
    assert not report(ours, rounded(), exact).passed
    assert not report(rounded(), rounded() + 1, np.full_like(exact, np.nan)).passed


def test_nan_must_stand_where_tensorflow_has_it() -> None:
    theirs = rounded()
    theirs[3, 3] = np.nan
    assert report(theirs.copy(), theirs).passed
    assert not report(rounded(), theirs).passed


def test_integers_and_strings_are_equal_to_the_bit() -> None:
    ids = np.arange(12)
    assert report(ids, ids).passed
    assert not report(np.where(ids == 5, 6, ids), ids).passed
    words = np.array([b"a", b"b\0"], object)
    assert report(words, words).passed
    found = report(np.array([b"a", b"b"], object), words)
    assert not found.passed
    assert found.outputs["y"].reason == "the first difference is 'b', TensorFlow's 'b\\x00'"


def test_shapes_and_dtypes_are_equal() -> None:
    assert "shape" in report(rounded()[:, :4], rounded()).outputs["y"].reason
    assert "dtype" in report(rounded().astype(np.float64), rounded()).outputs["y"].reason
    missing = compare([{}], [{"y": rounded()}], [{}], compared_with="a test")
    assert not missing.passed


def test_refusals_must_agree() -> None:
    good = rounded()
    both = compare(["no", {"y": good}], ["no", {"y": good}], ["no", {"y": EXACT}], compared_with="a test")
    assert both.passed
    assert both.refused == 1
    ours = compare(["no", {"y": good}], [{"y": good}, {"y": good}], ["no", {"y": EXACT}], compared_with="a test")
    assert "refuses what TensorFlow answers" in ours.failures[0]
    theirs = compare([{"y": good}] * 2, ["no", {"y": good}], [{"y": EXACT}] * 2, compared_with="a test")
    assert "answers what TensorFlow refuses" in theirs.failures[0]


def test_nothing_answered_is_neither_equal_nor_unequal() -> None:
    report = compare(["no"], ["no"], ["no"], compared_with="a test")
    assert (report.enough, report.verdict) == (False, "not enough evidence")


def test_floats_are_decided_in_the_domain_and_integers_everywhere() -> None:
    """At the edges (1e9 into a network that was trained on 0 to 1) floats may be anywhere; an id may not."""
    good = {"y": EXACT.astype(np.float32), "id": np.array([1, 2])}
    far = {"y": good["y"] * 1.5, "id": np.array([1, 2])}
    kinds = ["domain", "edge"]
    exact = [{"y": EXACT}, {"y": EXACT}]
    assert compare([good, far], [good, good], exact, compared_with="a test", kinds=kinds).verdict == "equal"
    assert compare([far, good], [good, good], exact, compared_with="a test", kinds=kinds).verdict == "unequal"
    wrong = {**good, "id": np.array([1, 3])}
    assert compare([good, wrong], [good, good], exact, compared_with="a test", kinds=kinds).verdict == "unequal"


def test_ids_may_change_places_only_where_scores_tie() -> None:
    scores = np.array([[3.0, 2.0, 2.0, 1.0]], np.float32)
    theirs = {"scores": scores, "ids": np.array([[7, 5, 6, 4]])}

    def passes(ids: list[int]) -> bool:
        ours = {"scores": scores, "ids": np.array([ids])}
        return compare([ours], [theirs], [theirs], compared_with="a test").passed

    assert passes([7, 5, 6, 4])
    assert passes([7, 6, 5, 4])
    assert not passes([5, 7, 6, 4])


def test_ids_inside_the_tower_count() -> None:
    found = report(rounded(), rounded())
    found.compare_ids([({"words": np.array([1, 2])}, {"words": np.array([1, 2])})])
    assert found.passed
    found.compare_ids([({"words": np.array([1, 2])}, {"words": np.array([1, 3])})])
    assert not found.passed
    assert "FAIL words: 1 of 2 int64" in "\n".join(found.lines())


def test_scores_that_are_no_numbers_have_no_order() -> None:
    scores = np.array([[np.nan, np.nan, 1.0]], np.float32)
    theirs = {"scores": scores, "ids": np.array([[7, 5, 6]])}
    ours = {"scores": scores, "ids": np.array([[5, 7, 6]])}
    assert compare([ours], [theirs], [theirs], compared_with="a test").passed


def test_a_float64_run_that_refuses_is_a_sentence() -> None:
    """It was an AttributeError: the message of the refusal was taken for the outputs."""
    batch = {"y": np.ones((2, 3), np.float32)}
    report = compare([batch, batch], [batch, batch], [batch, "index 9 is out of range"], compared_with="TensorFlow")
    assert not report.passed and report.batches == 1
    assert report.failures == ["the port answers, but its float64 reference run refuses: index 9 is out of range"]


@pytest.mark.parametrize("precision, error, passed", [
    ("float64", 1e-8, False), ("float32", 1e-3, False), ("float16", 1e-3, True), ("bfloat16", 1e-2, True), ("bfloat16", 0.3, False),
])  # fmt: skip
def test_rounding_is_that_of_the_coarsest_float_inside(precision: str, error: float, passed: bool) -> None:
    exact = {"y": np.random.default_rng(0).normal(size=(8, 16))}
    port = {"y": exact["y"].astype(np.float32 if precision != "float64" else np.float64)}
    theirs = {"y": (exact["y"] * (1 + error)).astype(port["y"].dtype)}
    report = compare([port], [theirs], [exact], compared_with="TensorFlow", precisions={"y": precision})
    assert report.passed is passed
