"""Trains the package search: a query tower and a candidate tower, in Keras 3, exported as two SavedModels.

`python examples/packages/train.py` reads packages.tsv and writes query_model/ and candidate_model/. It needs
TensorFlow with Keras 3 and takes a few minutes on two cores.

A pair is a package and words from its own metadata: its tags ("editing", "image"), description and name. The loss
is the in-batch softmax: the other packages of the batch are negatives, except those that contain every word of
the query. Tags are queries, never features: the towers learn to infer from a description what a program is for.
"""

import csv
import os
import random
import re
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
SEED = 2
WORDS = 40  # longest text, in words
SUMMARY_WORDS = 10  # the description begins with its summary
WORD_DIM = 32
VOCABULARY = 4000
DIM = 64
BATCH = 1024
EPOCHS = 30
QUERIES = 12  # per package and epoch
TEMPERATURE = 0.16
LEARNING_RATE = 3e-3
STOP_WORDS = """
a about all also an and any are as at based be been but by can could do does each etc for from has have if in
into  is it its like may more most no not of on one or other out package packages provides so some such than
that the their them  then there these they this to up use used uses using various very was well were when
where which while will with  within without you your program programs todo software tool tools application
simple
"""


def read_packages() -> dict[str, np.ndarray]:
    with open(HERE / "packages.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    columns = {key: np.array([row[key] for row in rows], dtype=object) for key in rows[0]}
    columns["size"] = columns["size"].astype(np.float32)
    return columns


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9+#]+", text.lower())


@keras.saving.register_keras_serializable("packages")
def standardize(text):
    """Lower case, single spaces, stemmed endings: "editor" equals "editing", "compress" equals "compression".

    A first word is added to every text, so that none is empty (the mean of no words is NaN).
    """
    text = tf.strings.regex_replace(tf.strings.lower(text), r"[^a-z0-9+#]+", " ")
    text = tf.strings.regex_replace(text, r"\b([a-z]{3,}?)(?:ings?|ers?|ors?|ions?|ed|es|e|s|y|ies)\b", r"\1")
    return tf.strings.join(["about ", text])


def all_words(packages: dict[str, np.ndarray]) -> list[str]:
    """All metadata of each package, including tags, as one text."""
    texts = zip(packages["name"], packages["section"], packages["description"], packages["tags"], strict=True)
    return [" ".join(text) for text in texts]


def build_towers(packages: dict[str, np.ndarray]) -> tuple[keras.Model, keras.Model]:
    """The two towers, which share a vocabulary and an embedding table."""
    vectorize = keras.layers.TextVectorization(
        max_tokens=VOCABULARY, standardize=standardize, output_sequence_length=WORDS, name="words"
    )
    vectorize.adapt(tf.data.Dataset.from_tensor_slices(all_words(packages)).batch(256))
    embed = keras.layers.Embedding(vectorize.vocabulary_size(), WORD_DIM, mask_zero=True, name="word_embedding")
    mean = keras.layers.GlobalAveragePooling1D(name="mean_of_words")

    def head(x, width: int):
        hidden = keras.layers.Dense(width, activation="relu")(x)
        hidden = keras.layers.Dropout(0.1)(hidden)
        x = keras.layers.Dense(DIM)(keras.layers.Concatenate()([x, hidden]))
        return keras.layers.UnitNormalization(name="embedding")(x)

    text = keras.Input((), dtype="string", name="text")
    query = keras.Model({"text": text}, head(mean(embed(vectorize(text))), 128), name="query")

    name = keras.Input((), dtype="string", name="name")
    section = keras.Input((), dtype="string", name="section")
    description = keras.Input((), dtype="string", name="description")
    size = keras.Input((), dtype="float32", name="size")
    section_id = keras.layers.StringLookup(vocabulary=sorted(set(packages["section"])), name="section_id")
    size_bin = keras.layers.Discretization(num_bins=12, name="size_bin")
    size_bin.adapt(packages["size"])
    log_size = keras.layers.Normalization(axis=None, name="log_size")
    log_size.adapt(np.log1p(packages["size"]))
    hashed = keras.layers.Hashing(num_bins=2048, name="name_bucket")
    told = vectorize(description)
    features = [
        mean(embed(told)),
        mean(embed(told[:, :SUMMARY_WORDS])),
        mean(embed(vectorize(name))),
        keras.layers.Embedding(section_id.vocabulary_size(), 8, name="section_embedding")(section_id(section)),
        keras.layers.Dropout(0.5)(keras.layers.Embedding(2048, 8, name="name_embedding")(hashed(name))),
        keras.layers.Embedding(12, 4, name="size_embedding")(size_bin(size)),
        keras.layers.Reshape((1,))(log_size(keras.ops.log1p(size))),
    ]
    inputs = {"name": name, "section": section, "description": description, "size": size}
    return query, keras.Model(inputs, head(keras.layers.Concatenate()(features), 192), name="candidate")


def draw_pairs(packages: dict[str, np.ndarray], rng: random.Random) -> tuple[list[str], list[str], list[int]]:
    """One epoch: queries, descriptions (some without the words of the query), and the packages they belong to."""
    dull = set(STOP_WORDS.split())
    pairs = []
    rows = zip(packages["name"], packages["description"], packages["tags"], strict=True)
    for i, (name, description, tags) in enumerate(rows):
        spoken = [w for w in words(description) if w not in dull and not w.isdigit()]
        facets = [[w for w in words(tag.split("::", 1)[1]) if w not in dull] for tag in tags.split()]
        summary = [w for w in words(description.split(". ")[0]) if w not in dull]
        for _ in range(QUERIES):
            kind = rng.random()
            if kind < 0.3 and facets:
                chosen = [w for facet in rng.sample(facets, min(len(facets), rng.randint(1, 3))) for w in facet]
                if rng.random() < 0.5 and spoken:
                    chosen.append(rng.choice(spoken))
            elif kind < 0.8 and summary:
                chosen = rng.sample(summary, min(len(summary), rng.randint(1, 4)))
            elif kind < 0.95 and spoken:
                chosen = rng.sample(spoken, min(len(spoken), rng.randint(1, 4)))
            else:
                chosen = words(name)
            if not chosen:
                continue
            shown = description
            if rng.random() < 0.3:
                shown = " ".join(w for w in words(description) if w not in chosen)
            pairs.append((" ".join(chosen), shown, i))
    rng.shuffle(pairs)
    queries, shown, owners = map(list, zip(*pairs, strict=True))
    return queries, shown, owners


def words_known(vectorize: keras.layers.TextVectorization, packages: dict[str, np.ndarray]) -> np.ndarray:
    """[packages, words of the vocabulary]: 1 where the package has the word, in any column."""
    known = np.zeros((len(packages["name"]), VOCABULARY), np.float32)
    place = {word: i for i, word in enumerate(vectorize.get_vocabulary())}
    for row, text in zip(known, standardize(tf.constant(all_words(packages))).numpy(), strict=True):
        row[[place.get(word.decode(), 1) for word in text.split()]] = 1
    return known[:, 2:]  # without padding and OOV


def train(query: keras.Model, candidate: keras.Model, packages: dict[str, np.ndarray]) -> None:
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    variables = list({id(v): v for v in query.trainable_variables + candidate.trainable_variables}.values())
    optimizer.build(variables)
    vectorize = query.get_layer("words")
    known = tf.constant(words_known(vectorize, packages))

    @tf.function(reduce_retracing=True)
    def step(batch):
        with tf.GradientTape() as tape:
            q = query({"text": batch["query"]}, training=True)
            c = candidate({key: batch[key] for key in ("name", "section", "description", "size")}, training=True)
            logits = tf.matmul(q, c, transpose_b=True) / TEMPERATURE
            # A package with every word of the query is not a negative.
            asked = tf.math.bincount(vectorize(batch["query"]), minlength=VOCABULARY, binary_output=True, axis=-1)
            asked = tf.cast(asked[:, 2:], tf.float32)
            hits = tf.matmul(asked, tf.gather(known, batch["owner"]), transpose_b=True)
            fits = tf.cast(hits >= tf.reduce_sum(asked, axis=1, keepdims=True), tf.float32)
            logits -= 1e9 * fits * (1 - tf.eye(tf.shape(q)[0]))
            labels = tf.range(tf.shape(q)[0])
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    rng = random.Random(SEED)
    for epoch in range(EPOCHS):
        optimizer.learning_rate = LEARNING_RATE * (1 - epoch / EPOCHS) + 1e-4
        queries, shown, owners = draw_pairs(packages, rng)
        columns = {key: packages[key][owners] for key in ("name", "section", "size")}
        columns |= {"name": columns["name"].astype(str), "section": columns["section"].astype(str)}
        columns |= {"query": np.array(queries), "description": np.array(shown), "owner": np.array(owners)}
        data = tf.data.Dataset.from_tensor_slices(columns).batch(BATCH, drop_remainder=True)
        losses = [float(step(batch)) for batch in data]
        print(f"epoch {epoch + 1}/{EPOCHS}  loss {np.mean(losses):.3f}", flush=True)


def show_answers(packages: dict[str, np.ndarray]) -> None:
    """Scores every package with the written SavedModels and prints the top ten."""
    serve_query = tf.saved_model.load(str(HERE / "query_model")).signatures["serving_default"]
    serve_candidate = tf.saved_model.load(str(HERE / "candidate_model")).signatures["serving_default"]
    texts = (HERE / "queries.txt").read_text(encoding="utf-8").splitlines()
    rows = {k: tf.constant(list(packages[k]), tf.string) for k in ("name", "section", "description")}
    candidates = serve_candidate(**rows, size=tf.constant(packages["size"]))["output_0"].numpy()
    queries = serve_query(text=tf.constant(texts))["output_0"].numpy()
    for text, scores in zip(texts, queries @ candidates.T, strict=True):
        best = np.argsort(-scores, kind="stable")[:10]
        print(f"{text:24}", ", ".join(f"{packages['name'][i]} {scores[i]:.2f}" for i in best))


def main() -> None:
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    packages = read_packages()
    query, candidate = build_towers(packages)
    train(query, candidate, packages)
    query.export(HERE / "query_model", verbose=False)
    candidate.export(HERE / "candidate_model", verbose=False)
    show_answers(packages)


if __name__ == "__main__":
    main()
