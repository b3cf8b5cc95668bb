"""TensorFlow Text: labels for sequences, spanning trees, ROUGE-L, sentences."""

from __future__ import annotations

from typing import Any

from porting.conversion.convert import ConvertingEmitter, converter
from porting.errors import PortingError

Emit = ConvertingEmitter
_FRAGMENTS = ("fragment_start", "fragment_end", "fragment_properties", "terminal_punc_token", "output_row_lengths")


@converter("ConstrainedSequence", outputs=("states", "states_splits"))
def constrained_sequence(t: Emit, scores: Any, lengths: Any, allowed: Any, weights: Any, *, use_viterbi: bool, use_log_space: bool,
                         use_start_and_end_states: bool, Tsplits: str = "int64") -> Any:  # fmt: skip
    operands = [t.tensor(operand) for operand in (scores, lengths, allowed, weights)]
    return t.constrained_sequence(
        *operands, use_viterbi=use_viterbi, use_log_space=use_log_space, use_start_and_end_states=use_start_and_end_states,
        splits_dtype=Tsplits,
    )  # fmt: skip


@converter("MaxSpanningTree", outputs=("max_scores", "argmax_sources"))
def max_spanning_tree(t: Emit, num_nodes: Any, scores: Any, *, forest: bool = False) -> Any:
    return t.max_spanning_tree(t.tensor(num_nodes), t.tensor(scores), forest=forest)


@converter("RougeL", outputs=("f_measure", "p_measure", "r_measure"))
def rouge_l(
    t: Emit, hypotheses: Any, hypothesis_splits: Any, references: Any, reference_splits: Any, alpha: Any
) -> Any:
    return t.rouge_l(
        *(t.tensor(operand) for operand in (hypotheses, hypothesis_splits, references, reference_splits, alpha))
    )


@converter("SentenceFragments", outputs=_FRAGMENTS, ignores=("errors", "replacement_char", "replace_control_characters"),
           refuses="words that are not UTF-8")  # fmt: skip
def sentence_fragments(t: Emit, row_lengths: Any, token_start: Any, token_end: Any, words: Any, properties: Any, *,
                       input_encoding: bytes) -> Any:  # fmt: skip
    """TensorFlow ignores the token positions and the error mode."""
    name = input_encoding.decode()
    if name.upper() not in ("UTF-8", "UTF8"):
        raise PortingError(f"{t.scope!r} reads words encoded as {name}: only UTF-8 is ported")
    return t.sentence_fragments(t.tensor(row_lengths), words, t.tensor(properties))
