"""Transformers as people write them by hand and as KerasHub does: names, masks, norms and positions in each one's spelling."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.witness import tf

VOCABULARY, LENGTH, DIM, HEADS, WIDE, LAYERS = 30, 12, 8, 2, 12, 2
HEAD = DIM // HEADS
BATCH = [tf.TensorSpec([None, None], tf.int32, "ids"), tf.TensorSpec([None, None], tf.bool, "mask")]


class Weights:
    """Variables by their names, drawn."""

    def __init__(self) -> None:
        self.rng, self.all = np.random.default_rng(7), {}

    def __call__(self, name: str, *shape: int) -> Any:
        if name not in self.all:
            self.all[name] = tf.Variable(self.rng.normal(0, 0.4, shape).astype(np.float32), name=name)
        return self.all[name]


def layer_norm(w: Weights, name: str, x: Any, eps: float = 1e-12) -> Any:
    mean, variance = tf.nn.moments(x, -1, keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, w(f"{name}/beta", DIM), w(f"{name}/gamma", DIM), eps)


def rms_norm(w: Weights, name: str, x: Any) -> Any:
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-6) * w(f"{name}/scale", DIM)


def offset_norm(w: Weights, name: str, x: Any) -> Any:
    variance = tf.reduce_mean(tf.square(x), -1, keepdims=True)
    return x * tf.math.reciprocal(tf.sqrt(variance + 1e-6)) * (1.0 + w(f"{name}/scale", DIM))


def dense(w: Weights, name: str, x: Any, inner: int, outer: int, bias: bool = True) -> Any:
    y = tf.tensordot(x, w(f"{name}/kernel", inner, outer), 1)
    return tf.nn.bias_add(y, w(f"{name}/bias", outer)) if bias else y


def heads(x: Any, count: int = HEADS) -> Any:
    shape = tf.shape(x)
    return tf.transpose(tf.reshape(x, [shape[0], shape[1], count, HEAD]), [0, 2, 1, 3])


def joined(x: Any) -> Any:
    x = tf.transpose(x, [0, 2, 1, 3])
    shape = tf.shape(x)
    return tf.reshape(x, [shape[0], shape[1], DIM])


def bert(w: Weights, ids: Any, mask: Any) -> Any:
    """By hand: an additive mask, token types, positions by a slice of their table, norms behind."""
    x = tf.gather(w("embeddings/words", VOCABULARY, DIM), ids)
    x += tf.gather(w("embeddings/types", 2, DIM), tf.zeros_like(ids))
    x += tf.slice(w("embeddings/positions", LENGTH, DIM), [0, 0], [tf.shape(ids)[1], DIM])[None]
    x = layer_norm(w, "embeddings/norm", x)
    bias = (1.0 - tf.cast(mask, tf.float32))[:, None, None, :] * -10000.0
    for block in range(LAYERS):
        scope = f"layer_{block}"
        q, k, v = (heads(dense(w, f"{scope}/attention/{part}", x, DIM, DIM)) for part in ("query", "key", "value"))
        scores = tf.matmul(q, k, transpose_b=True) / math.sqrt(HEAD) + bias
        found = joined(tf.matmul(tf.nn.softmax(scores), v))
        x = layer_norm(w, f"{scope}/attention_norm", x + dense(w, f"{scope}/attention/out", found, DIM, DIM))
        inner = tf.nn.gelu(dense(w, f"{scope}/inner", x, DIM, WIDE))
        x = layer_norm(w, f"{scope}/norm", x + dense(w, f"{scope}/outer", inner, WIDE, DIM))
    return tf.tanh(dense(w, "pooler", x[:, 0], DIM, DIM))


def attend(w: Weights, scope: str, x: Any, mask: Any) -> Any:
    """KerasHub's attention: kernels by head, scores as keys by queries, a mask before and behind the softmax."""
    parts = ("query", "key", "value")
    q, k, v = (tf.einsum("abc,cde->abde", x, w(f"{scope}/{part}/kernel", DIM, HEADS, HEAD)) + w(f"{scope}/{part}/bias", HEADS, HEAD)
               for part in parts)  # fmt: skip
    q = tf.transpose(q * (1.0 / math.sqrt(HEAD)), [0, 2, 3, 1])
    scores = tf.transpose(tf.matmul(tf.transpose(k, [0, 2, 1, 3]), q), [0, 1, 3, 2])
    shares = tf.where(mask, tf.nn.softmax(tf.where(mask, scores, tf.float32.min / 2)), 0.0)
    found = tf.transpose(tf.matmul(shares, tf.transpose(v, [0, 2, 1, 3])), [0, 2, 1, 3])
    out = tf.einsum("abcd,cde->abe", found, w(f"{scope}/attention_output/kernel", HEADS, HEAD, DIM))
    return out + w(f"{scope}/attention_output/bias", DIM)


def gpt(w: Weights, ids: Any, mask: Any) -> Any:
    """KerasHub's GPT-2: norms in front, places counted in floats, a mask that is causal and of padding."""
    shape = tf.shape(ids)
    rows = tf.slice(w("position_embedding/embeddings", LENGTH, DIM), [0, 0], [shape[1], DIM])
    x = tf.gather(w("token_embedding/embeddings", VOCABULARY, DIM), ids)
    x += tf.broadcast_to(rows, [shape[0], shape[1], DIM])
    places = tf.range(0.0, tf.cast(shape[1], tf.float32), 1.0)
    allowed = tf.logical_and((places[:, None] >= places)[None], mask[:, None, :])[:, None]
    for block in range(LAYERS):
        scope = f"layer_{block}"
        x += attend(w, f"{scope}/self_attention", layer_norm(w, f"{scope}/first_norm", x, 1e-5), allowed)
        inner = dense(w, f"{scope}/inner", layer_norm(w, f"{scope}/second_norm", x, 1e-5), DIM, WIDE)
        x += dense(w, f"{scope}/outer", tf.nn.gelu(inner, approximate=True), WIDE, DIM)
    return layer_norm(w, "final_norm", x, 1e-5)


def turned(x: Any, places: Any) -> Any:
    """Rotary positions, halves against each other."""
    angles = places[:, None] * tf.constant([1.0, 0.1])[None]
    sin, cos = (tf.concat([f(angles), f(angles)], -1)[None, None] for f in (tf.sin, tf.cos))
    a, b = tf.split(x, 2, -1)
    return x * cos + tf.concat([-b, a], -1) * sin


def llama(w: Weights, ids: Any, mask: Any) -> Any:
    """Rotary positions, fewer keys than queries, a gate in the feed-forward, RMSNorm."""
    x = tf.gather(w("token_embedding/embeddings", VOCABULARY, DIM), ids)
    places = tf.cast(tf.range(tf.shape(ids)[1]), tf.float32)
    for block in range(LAYERS):
        scope = f"layer_{block}"
        normed = rms_norm(w, f"{scope}/attention_norm", x)
        q = turned(heads(dense(w, f"{scope}/attention/query", normed, DIM, DIM, False)), places)
        k = turned(heads(dense(w, f"{scope}/attention/key", normed, DIM, HEAD, False), 1), places)
        v = heads(dense(w, f"{scope}/attention/value", normed, DIM, HEAD, False), 1)
        scores = tf.matmul(q, tf.repeat(k, HEADS, 1), transpose_b=True) * (1.0 / math.sqrt(HEAD))
        shares = tf.nn.softmax(tf.where(mask[:, None, None, :], scores, -1e9))
        x += dense(w, f"{scope}/attention/out", joined(tf.matmul(shares, tf.repeat(v, HEADS, 1))), DIM, DIM, False)
        normed = rms_norm(w, f"{scope}/norm", x)
        gate = tf.nn.silu(dense(w, f"{scope}/gate", normed, DIM, WIDE, False))
        x += dense(w, f"{scope}/down", gate * dense(w, f"{scope}/up", normed, DIM, WIDE, False), WIDE, DIM, False)
    return rms_norm(w, "final_norm", x)


def gemma(w: Weights, ids: Any, mask: Any) -> Any:
    """Embeddings times the root of their size, scales beside one, a gelu as the gate."""
    x = tf.gather(w("token_embedding/embeddings", VOCABULARY, DIM), ids) * math.sqrt(DIM)
    for block in range(LAYERS):
        scope = f"block_{block}"
        x += attend(w, f"{scope}/attention", offset_norm(w, f"{scope}/first_norm", x), mask[:, None, None, :])
        normed = offset_norm(w, f"{scope}/second_norm", x)
        gate = tf.nn.gelu(dense(w, f"{scope}/gating", normed, DIM, WIDE, False), approximate=True)
        x += dense(
            w, f"{scope}/linear", gate * dense(w, f"{scope}/gating_2", normed, DIM, WIDE, False), WIDE, DIM, False
        )
    return offset_norm(w, "final_norm", x)


FAMILIES: dict[str, Callable[[Weights, Any, Any], Any]] = {"bert": bert, "gpt": gpt, "llama": llama, "gemma": gemma}


def write(family: str, path: Path) -> None:
    """The SavedModel of a family: ids and a mask in, `y` out."""
    module, w = tf.Module(), Weights()

    def serve(ids: Any, mask: Any) -> dict[str, Any]:
        return {"y": FAMILIES[family](w, ids, mask)}

    serve(tf.zeros([1, 3], tf.int32), tf.ones([1, 3], tf.bool))  # makes the variables
    module.weights = list(w.all.values())
    module.serve = tf.function(serve, input_signature=BATCH)
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})
