/* SentencePiece's unigram segmentation of many texts at once: the library's own algorithms (its Normalizer, its EncodeOptimized),
 * the same floats added in the same order, without an object per text and per piece. What it does not serve (open gives None,
 * encode gives None) the library does, with the same ids.
 *
 * White space (U+2581 in pieces) is one byte here, ' ', which no normalized text and so no piece that can match holds. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__)
#define SOON(address) __builtin_prefetch(address)
#else
#define SOON(address) (void)(address)
#endif

typedef const unsigned char *Text;

enum { SLOW = 0xFF, GONE = 0x80 };                             /* in `Model.plain` */
enum { NORMAL = 1, UNKNOWN = 2, USER_DEFINED = 4, BYTE = 6 };  /* types of pieces */
enum { UNIGRAM = 1 };
enum { MEMOS = 16, LONGEST_WORD = 64, MEMO_BITS = 15, ARENA = 1 << 21 };
static const uint32_t EMPTY = 0xFFFFFFFFu;
static const float FARTHEST = 90000.0f; /* the library shifts scores beyond 100,000 */
static const char *CAPSULE = "torch_towers.pieces";

/* A place in the trie: `key` is its parent's place << 8 | byte, `next` has bits for the bytes that follow, `id` -1: no piece ends here. */
typedef struct {
    uint32_t key, next;
    float score;
    int32_t id;
} Node;

/* A word that was met before. While the score so far is within `limit`, rounding cannot make another segmentation the best one. */
typedef struct {
    float limit;
    uint32_t size, ids, steps; /* then `ids` int32s, `steps` floats (the scores to add) and `size` bytes */
} Word;

typedef struct {
    uint32_t hash, at; /* `at`: the place of the Word in `arena` + 1, 0 for none */
} MemoSlot;

typedef struct {
    int busy;
    uint32_t count, used;
    MemoSlot *slots;
    char *arena;
} Memo;

typedef struct {
    Node *nodes; /* a hash table */
    uint32_t bits, roots[256];
    uint32_t *rules, rule_count; /* the double array of the character map; its values are places in `written` */
    char *written;
    Py_ssize_t written_size;
    unsigned char plain[128]; /* what an ASCII byte becomes where the next is ASCII too: a byte, GONE, or SLOW: look in the rules */
    int dummy_prefix, squeezes, byte_fallback;
    int by_word; /* every segmentation parts the text before each white space */
    int32_t unknown, bytes[256];
    float unknown_score, farthest, *scores;
    int32_t pieces, room;
    Memo memos[MEMOS];
} Model;

/* -- the trie of pieces ----------------------------------------------------------------------------------------------- */

static uint32_t slot_of(const Node *nodes, uint32_t bits, uint32_t key) {
    uint32_t mask = (1u << bits) - 1, at = (key * 2654435761u) >> (32 - bits);
    while (nodes[at].key != EMPTY && nodes[at].key != key) at = (at + 1) & mask;
    return at;
}

static Node *no_nodes(uint32_t bits) {
    Node *nodes = malloc(sizeof(Node) << bits);
    if (nodes != NULL) memset(nodes, 0xFF, sizeof(Node) << bits);
    return nodes;
}

/* A trie that grows: nodes are numbered in order, so that a parent comes before its children, and found by number and byte. */
typedef struct {
    Node *found; /* a hash table: `next` is the number of the node */
    Node *nodes; /* by number */
    uint32_t bits, count, room;
} Trie;

static int more_slots(Trie *t) {
    uint32_t bits = t->found == NULL ? 12 : t->bits + 1;
    Node *found = no_nodes(bits);
    if (found == NULL) return -1;
    for (uint32_t i = 0; t->found != NULL && i < 1u << t->bits; i++)
        if (t->found[i].key != EMPTY) found[slot_of(found, bits, t->found[i].key)] = t->found[i];
    free(t->found);
    t->found = found;
    t->bits = bits;
    return 0;
}

static int new_node(Trie *t, uint32_t key) {
    if (t->count == t->room) {
        uint32_t room = t->room ? 2 * t->room : 4096;
        Node *nodes = realloc(t->nodes, room * sizeof(Node));
        if (nodes == NULL) return -1;
        t->nodes = nodes;
        t->room = room;
    }
    t->nodes[t->count++] = (Node){key, 0, 0.0f, -1};
    return 0;
}

/* 1: added, 0: too many, -1: no memory. */
static int add_piece(Trie *t, int *by_word, Text piece, size_t size, float score, int32_t id) {
    uint32_t node = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = piece[i];
        if (byte == ' ') return 1; /* no normalized text has one */
        if (byte == 0xE2 && i + 2 < size && piece[i + 1] == 0x96 && piece[i + 2] == 0x81) {
            byte = ' ';
            *by_word &= i == 0;
            i += 2;
        }
        if (t->count >= 0x3FFFFF) return 0;
        if (t->count >= (1u << t->bits) / 2 && more_slots(t) < 0) return -1;
        Node *slot = &t->found[slot_of(t->found, t->bits, node << 8 | byte)];
        if (slot->key == EMPTY) {
            *slot = (Node){node << 8 | byte, t->count, 0.0f, -1};
            if (new_node(t, slot->key) < 0) return -1;
        }
        t->nodes[node].next |= 1u << (byte & 31);
        node = slot->next;
    }
    t->nodes[node].score = score;
    t->nodes[node].id = id;
    return 1;
}

/* The trie as it is searched: the places of nodes are their numbers, so that a step takes one look. */
static int place_nodes(Model *m, const Trie *t) {
    uint32_t *places = malloc(t->count * sizeof(uint32_t));
    m->bits = t->bits;
    m->nodes = no_nodes(t->bits);
    memset(m->roots, 0xFF, sizeof m->roots);
    for (uint32_t i = 1; places != NULL && m->nodes != NULL && i < t->count; i++) {
        uint32_t parent = t->nodes[i].key >> 8, byte = t->nodes[i].key & 255;
        uint32_t key = parent ? places[parent] << 8 | byte : 0xFFFFFE00u | byte; /* the root has no place */
        places[i] = slot_of(m->nodes, m->bits, key);
        m->nodes[places[i]] = t->nodes[i];
        m->nodes[places[i]].key = key;
        if (!parent) m->roots[byte] = places[i];
    }
    int done = places != NULL && m->nodes != NULL ? 1 : -1;
    free(places);
    return done;
}

/* -- the model's message ---------------------------------------------------------------------------------------------- */

typedef struct {
    Text at, end;
} Span;

static int varint(Span *s, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && s->at < s->end; shift += 7) {
        unsigned char byte = *s->at++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return 1;
    }
    return 0;
}

/* The next field: its number, and what it holds, as an integer (of 32 bits, too) or a span. 0 at the end, -1 where it is broken. */
static int field(Span *s, uint64_t *number, uint64_t *value, Span *inner) {
    uint64_t tag;
    if (s->at == s->end) return 0;
    if (!varint(s, &tag)) return -1;
    *number = tag >> 3;
    *inner = (Span){s->at, s->at};
    switch (tag & 7) {
    case 0: return varint(s, value) ? 1 : -1;
    case 1:
        if (s->end - s->at < 8) return -1;
        s->at += 8;
        return 1;
    case 2:
        if (!varint(s, value) || *value > (uint64_t)(s->end - s->at)) return -1;
        *inner = (Span){s->at, s->at + *value};
        s->at += *value;
        return 1;
    case 5: {
        uint32_t word;
        if (s->end - s->at < 4) return -1;
        memcpy(&word, s->at, 4);
        *value = word;
        s->at += 4;
        return 1;
    }
    default: return -1;
    }
}

static int is_text(Text bytes, Py_ssize_t size) {
    PyObject *text = PyUnicode_DecodeUTF8((const char *)bytes, size, NULL);
    if (text == NULL) PyErr_Clear();
    Py_XDECREF(text);
    return text != NULL;
}

/* One piece. 1: done, 0: the model is not plain, -1: no memory. */
static int read_piece(Model *m, Trie *t, Span s, float *lowest) {
    Span text = {NULL, NULL}, inner;
    uint64_t number, value = 0, type = NORMAL;
    float score = 0.0f;
    int got;
    while ((got = field(&s, &number, &value, &inner)) > 0) {
        if (number == 1) text = inner;
        else if (number == 2) { uint32_t word = (uint32_t)value; memcpy(&score, &word, 4); }
        else if (number == 3) type = value;
    }
    Py_ssize_t size = text.end - text.at;
    int32_t id = m->pieces++;
    if (id == m->room) {
        float *scores = realloc(m->scores, (2 * id + 1024) * sizeof(float));
        if (scores == NULL) return -1;
        m->scores = scores;
        m->room = 2 * id + 1024;
    }
    m->scores[id] = score;
    if (got < 0 || size == 0 || !isfinite(score) || type == USER_DEFINED || !is_text(text.at, size)) return 0;
    if (type == UNKNOWN) {
        if (m->unknown >= 0) return 0;
        m->unknown = id;
    } else if (type == BYTE) {
        unsigned int byte;
        char name[8];
        for (byte = 0; byte < 256; byte++) {
            snprintf(name, sizeof name, "<0x%02X>", byte);
            if (size == 6 && memcmp(name, text.at, 6) == 0) break;
        }
        if (byte == 256) return 0;
        m->bytes[byte] = id;
    } else if (type == NORMAL) {
        if (score < *lowest) *lowest = score;
        if (fabsf(score) > m->farthest) m->farthest = fabsf(score);
        return add_piece(t, &m->by_word, text.at, size, score, id);
    }
    return 1;
}

/* The character map: the size of a double array, the array, and the texts that its values begin. */
static int read_rules(Model *m, Span s) {
    uint32_t size;
    if (s.end == s.at) return 1;
    if (s.end - s.at <= 4) return 0;
    memcpy(&size, s.at, 4);
    s.at += 4;
    if (size % 1024 || size == 0 || size >= (uint64_t)(s.end - s.at) || m->rules != NULL) return 0;
    m->written_size = s.end - s.at - size;
    if (!is_text(s.at + size, m->written_size)) return 0;
    m->rules = malloc(size);
    m->written = malloc(m->written_size + 1);
    if (m->rules == NULL || m->written == NULL) return -1;
    memcpy(m->rules, s.at, size);
    memcpy(m->written, s.at + size, m->written_size);
    m->written[m->written_size] = 0;
    m->rule_count = size / 4;
    return 1;
}

static int read_normalizer(Model *m, Span s, Span *rules, int *plain) {
    uint64_t number, value = 0;
    Span inner;
    int got;
    while ((got = field(&s, &number, &value, &inner)) > 0) {
        if (number == 2) *rules = inner;
        else if (number == 3) m->dummy_prefix = value != 0;
        else if (number == 4) m->squeezes = value != 0;
        else if (number == 5) *plain = value != 0;
    }
    return got == 0;
}

static int read_trainer(Model *m, Span s, uint64_t *type, int *suffix) {
    uint64_t number, value = 0;
    Span inner;
    int got;
    while ((got = field(&s, &number, &value, &inner)) > 0) {
        if (number == 3) *type = value;
        else if (number == 24) *suffix = value != 0;
        else if (number == 35) m->byte_fallback = value != 0;
    }
    return got == 0;
}

/* -- normalization ---------------------------------------------------------------------------------------------------- */

static uint32_t unit_offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

/* The longest rule for what begins at `at`: how many bytes it takes, and its value. 0 where there is none. */
static Py_ssize_t longest_rule(const Model *m, Text at, Text end, uint32_t *value) {
    Py_ssize_t longest = 0;
    uint32_t node = m->rule_count ? unit_offset(m->rules[0]) : 0;
    for (Text p = at; p < end; p++) {
        node ^= *p;
        if (node >= m->rule_count || (m->rules[node] & (1u << 31 | 0xFF)) != *p) break;
        uint32_t unit = m->rules[node];
        node ^= unit_offset(unit);
        if (unit >> 8 & 1) {
            if (node >= m->rule_count) break;
            *value = m->rules[node] & 0x3FFFFFFFu;
            longest = p + 1 - at;
        }
    }
    return longest;
}

static int trails(unsigned char byte) { return (byte & 0xC0) == 0x80; }

/* The bytes of the character at `at`, 0 where it is not UTF-8. */
static int character(Text at, Text end) {
    Py_ssize_t left = end - at;
    uint32_t code;
    if (at[0] < 0x80) return 1;
    if (left >= 2 && (at[0] & 0xE0) == 0xC0)
        return trails(at[1]) && at[0] >= 0xC2 ? 2 : 0;
    if (left >= 3 && (at[0] & 0xF0) == 0xE0) {
        code = (at[0] & 15u) << 12 | (at[1] & 63u) << 6 | (at[2] & 63u);
        return trails(at[1]) && trails(at[2]) && code >= 0x800 && (code < 0xD800 || code >= 0xE000) ? 3 : 0;
    }
    if (left >= 4 && (at[0] & 0xF8) == 0xF0) {
        code = (at[0] & 7u) << 18 | (at[1] & 63u) << 12 | (at[2] & 63u) << 6 | (at[3] & 63u);
        return trails(at[1]) && trails(at[2]) && trails(at[3]) && code >= 0x10000 && code <= 0x10FFFF ? 4 : 0;
    }
    return 0;
}

/* What the next character or rule becomes: how many bytes it takes, and what is written; -1 where the rules are broken. */
static Py_ssize_t prefix(const Model *m, Text at, Text end, Text *written, Py_ssize_t *size) {
    if (*at < 128 && (at + 1 == end || at[1] < 128) && m->plain[*at] != SLOW) {
        *written = &m->plain[*at];
        *size = m->plain[*at] != GONE;
        return 1;
    }
    uint32_t value;
    Py_ssize_t taken = longest_rule(m, at, end, &value);
    if (taken && value < m->written_size) {
        *written = (Text)m->written + value;
        *size = strlen((const char *)*written);
        return *size && trails(**written) ? -1 : taken;
    }
    taken = character(at, end);
    *written = taken ? at : (Text)"\xEF\xBF\xBD";
    *size = taken ? taken : 3;
    return taken ? taken : 1;
}

static void find_plain(Model *m) {
    for (int byte = 0; byte < 128; byte++) {
        m->plain[byte] = SLOW;
        unsigned char pair[2] = {byte, 0};
        Text written;
        Py_ssize_t size;
        uint32_t first = (m->rule_count ? unit_offset(m->rules[0]) : 0) ^ byte;
        int pairs = 0; /* rules that go on with ASCII */
        if (first < m->rule_count && (m->rules[first] & (1u << 31 | 0xFF)) == (uint32_t)byte)
            for (uint32_t next = 1; next < 128; next++) {
                uint32_t node = first ^ unit_offset(m->rules[first]) ^ next;
                pairs |= node < m->rule_count && (m->rules[node] & (1u << 31 | 0xFF)) == next;
            }
        if (pairs || byte == 0 || prefix(m, pair, pair + 1, &written, &size) < 0) continue;
        if (size == 0) m->plain[byte] = GONE;
        else if (size == 1 && *written < 128) m->plain[byte] = *written;
    }
}

/* The best path that ends at a position: its last piece begins at `start` (-1: there is none). `second` is the next best score. */
typedef struct {
    float score, second;
    int32_t id, start;
} Best;

typedef struct {
    const unsigned char *text;
    uint32_t size, hash;
} Part;

/* One call: what it needs, and the ids that it found. */
typedef struct {
    const Model *model;
    int32_t first, last; /* the marks around each row, -1 for none */
    int reverse;
    Memo *memo; /* this call's alone while it runs; NULL for none */
    unsigned char *text;
    Best *best;
    Part *parts;
    int32_t *ids;
    size_t text_room, best_room, parts_room, ids_room, used;
} Work;

static int reserve(void **memory, size_t *room, size_t wanted, size_t size) {
    if (wanted <= *room) return 0;
    size_t more = wanted + wanted / 2 + 64;
    void *grown = realloc(*memory, more * size);
    if (grown == NULL) return -1;
    *memory = grown;
    *room = more;
    return 0;
}

/* The normalized text, in `w->text`: its length, -1 where it cannot be had. */
static Py_ssize_t normalize(Work *w, Text at, Text end) {
    const Model *m = w->model;
    Text written;
    Py_ssize_t size, taken, length = 0;
    if (m->squeezes)
        while (at < end) {
            if ((taken = prefix(m, at, end, &written, &size)) < 0) return -1;
            if (size != 1 || *written != ' ') break;
            at += taken;
        }
    if (at == end) return 0;
    if (reserve((void **)&w->text, &w->text_room, end - at + 8, 1) < 0) return -1;
    if (m->dummy_prefix) w->text[length++] = ' ';
    int spaced = m->squeezes;
    while (at < end) {
        if (*at < 128 && at + 1 < end && at[1] < 128 && m->plain[*at] < 128) { /* what nearly all text is */
            unsigned char byte = m->plain[*at++];
            if (byte == ' ' && spaced) continue;
            spaced = byte == ' ' && m->squeezes;
            w->text[length++] = byte;
            continue;
        }
        if ((taken = prefix(m, at, end, &written, &size)) < 0) return -1;
        at += taken;
        for (; spaced && size && *written == ' '; written++) size--;
        if (size) {
            if (reserve((void **)&w->text, &w->text_room, length + size + (end - at) + 8, 1) < 0) return -1;
            spaced = written[size - 1] == ' ';
            for (; size; written++, size--) {
                if (size > 2 && written[0] == 0xE2 && written[1] == 0x96 && written[2] == 0x81) {
                    w->text[length++] = ' ';
                    written += 2;
                    size -= 2;
                } else w->text[length++] = *written;
            }
        }
        spaced = spaced && m->squeezes;
    }
    if (m->squeezes)
        while (length && w->text[length - 1] == ' ') length--;
    return length;
}

/* -- segmentation ----------------------------------------------------------------------------------------------------- */

static const unsigned char LENGTHS[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4};

static void offer(Best *end, float score, int32_t id, Py_ssize_t start) {
    if (end->start == -1 || score > end->score) *end = (Best){score, end->start == -1 ? -INFINITY : end->score, id, (int32_t)start};
    else if (score > end->second) end->second = score;
}

/* The best path to every position of `text`, after a score of `before`; -1 where a score is too far from 0. */
static int paths(Work *w, const unsigned char *text, Py_ssize_t length, float before) {
    const Model *m = w->model;
    if (reserve((void **)&w->best, &w->best_room, length + 1, sizeof(Best)) < 0) return -1;
    Best *best = w->best;
    for (Py_ssize_t i = 0; i <= length; i++) best[i].start = -1;
    best[0].score = before;
    for (Py_ssize_t start = 0; start < length;) {
        float here = best[start].score;
        Py_ssize_t wide = LENGTHS[text[start] >> 4];
        if (wide > length - start) wide = length - start;
        if (!(fabsf(here) < FARTHEST)) return -1;
        int single = 0;
        uint32_t place = m->roots[text[start]];
        for (Py_ssize_t at = start + 1; place != EMPTY; at++) {
            const Node *node = &m->nodes[place];
            if (node->id >= 0) {
                offer(&best[at], node->score + here, node->id, start);
                single |= at - start == wide;
            }
            if (at == length || !(node->next >> (text[at] & 31) & 1)) break;
            place = slot_of(m->nodes, m->bits, place << 8 | text[at]);
            if (m->nodes[place].key == EMPTY) break;
        }
        if (!single) offer(&best[start + wide], m->unknown_score + here, m->unknown, start);
        start += wide;
    }
    return 0;
}

/* The bytes of an unknown piece, the last first. */
static int32_t *spell(const Model *m, Text from, Text to, int32_t *out) {
    while (to-- > from) {
        if (*to == ' ') {
            *out++ = m->bytes[0x81];
            *out++ = m->bytes[0x96];
            *out++ = m->bytes[0xE2];
        } else *out++ = m->bytes[*to];
    }
    return out;
}

static void turn(int32_t *from, int32_t *to) {
    for (to--; from < to; from++, to--) {
        int32_t id = *from;
        *from = *to;
        *to = id;
    }
}

/* The ids of the best path to the end of `text`, behind those that are there already. There must be room for three a byte. */
static void follow(Work *w, const unsigned char *text, Py_ssize_t length) {
    const Model *m = w->model;
    int32_t *begin = w->ids + w->used, *out = begin;
    int was_unknown = 0;
    for (int32_t end = (int32_t)length; end > 0; end = w->best[end].start) {
        int32_t id = w->best[end].id;
        int unknown = id == m->unknown;
        if (unknown && m->byte_fallback) out = spell(m, text + w->best[end].start, text + end, out);
        else if (!unknown || !was_unknown) *out++ = id; /* a run of unknown pieces is one */
        was_unknown = unknown;
    }
    turn(begin, out);
    w->used += out - begin;
}

/* -- words that come again -------------------------------------------------------------------------------------------- */

/* Where no piece has white space but as its first character, every path passes the begin of each word: the best path is made of the
 * words' best paths. But scores are floats: what is added before a word decides how the sums inside it are rounded, and so, where two
 * segmentations are nearly equal, which one wins. Hence a word is kept with the largest score before it for which rounding cannot
 * decide: for n bytes, of scores of at most s, after a score of b, a path's sum is off by at most n (|b| + n s) 2^-24, and every piece
 * of the best path must win by more than twice that (four times, as the sums that tell by how much it wins are rounded too). The
 * scores are added up piece by piece as the library does, so that words beyond their limit are segmented with the library's sum. */
static float limit_of(const Work *w, Py_ssize_t length) {
    double gap = INFINITY;
    for (int32_t end = (int32_t)length; end > 0; end = w->best[end].start) {
        double by = (double)w->best[end].score - w->best[end].second;
        if (by < gap) gap = by;
    }
    return (float)(gap * 4194304.0 / (double)length * 0.99 - (double)length * w->model->farthest);
}

static uint32_t hash_of(const unsigned char *text, Py_ssize_t size) {
    uint64_t hash = (uint64_t)size * 0x9E3779B97F4A7C15u, part;
    for (; size >= 8; text += 8, size -= 8) {
        memcpy(&part, text, 8);
        hash = (hash ^ part) * 0x9FB21C651E98DF25u;
        hash ^= hash >> 32;
    }
    for (part = 0; size; size--) part = part << 8 | *text++;
    hash = (hash ^ part) * 0x9FB21C651E98DF25u;
    return (uint32_t)(hash >> 32) ^ (uint32_t)hash;
}

static int32_t *ids_of(const Word *word) { return (int32_t *)(word + 1); }
static float *steps_of(const Word *word) { return (float *)(ids_of(word) + word->ids); }
static unsigned char *text_of(const Word *word) { return (unsigned char *)(steps_of(word) + word->steps); }

/* The slot of a word, or the free one where it belongs. */
static MemoSlot *memo_slot(const Memo *memo, uint32_t hash, const unsigned char *text, Py_ssize_t size) {
    for (uint32_t at = hash >> (32 - MEMO_BITS);; at = (at + 1) & ((1u << MEMO_BITS) - 1)) {
        MemoSlot *slot = &memo->slots[at];
        if (slot->at == 0) return slot;
        const Word *word = (const Word *)(memo->arena + slot->at - 1);
        if (slot->hash == hash && word->size == (uint32_t)size && memcmp(text_of(word), text, size) == 0) return slot;
    }
}

/* Keeps the word whose ids are the last that were found and whose paths, after nothing, are in `w->best`. */
static const Word *keep(Work *w, uint32_t hash, const unsigned char *text, Py_ssize_t size, size_t begin) {
    Memo *memo = w->memo;
    uint32_t steps = 0, ids = (uint32_t)(w->used - begin);
    for (int32_t end = (int32_t)size; end > 0; end = w->best[end].start) steps++;
    uint32_t room = (uint32_t)(sizeof(Word) + 4 * (ids + steps + (size + 3) / 4));
    if (memo->used + room + 32 > ARENA || memo->count >= (3u << MEMO_BITS) / 4) { /* full: from the beginning, with what comes now */
        memset(memo->slots, 0, sizeof(MemoSlot) << MEMO_BITS);
        memo->count = memo->used = 0;
    }
    Word *word = (Word *)(memo->arena + memo->used);
    *word = (Word){limit_of(w, size), (uint32_t)size, ids, steps};
    memcpy(ids_of(word), w->ids + begin, 4 * ids);
    for (int32_t end = (int32_t)size; end > 0; end = w->best[end].start) {
        int32_t id = w->best[end].id;
        steps_of(word)[--steps] = id == w->model->unknown ? w->model->unknown_score : w->model->scores[id];
    }
    memcpy(text_of(word), text, size);
    *memo_slot(memo, hash, text, size) = (MemoSlot){hash, memo->used + 1};
    memo->used += room;
    memo->count++;
    return word;
}

/* The parts of a text before each white space, hashed: a first look at all places that will be read, since they are far apart. */
static Py_ssize_t part(Work *w, Py_ssize_t length) {
    Py_ssize_t count = 0;
    for (const unsigned char *at = w->text, *end = at + length, *next; at < end; at = next, count++) {
        next = memchr(at + 1, ' ', end - at - 1);
        if (next == NULL) next = end;
        if (reserve((void **)&w->parts, &w->parts_room, count + 1, sizeof(Part)) < 0) return -1;
        Part *here = &w->parts[count];
        *here = (Part){at, (uint32_t)(next - at), next - at <= LONGEST_WORD ? hash_of(at, next - at) : 0};
        SOON(&w->memo->slots[here->hash >> (32 - MEMO_BITS)]);
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t at = w->memo->slots[w->parts[i].hash >> (32 - MEMO_BITS)].at;
        if (at) SOON(w->memo->arena + at - 1);
    }
    return count;
}

/* Segments one part after a score of `*sum`, which it moves on. There must be room for three ids a byte and eight more. */
static int segment_part(Work *w, const Part *part, float *sum) {
    size_t begin = w->used;
    if (part->size <= LONGEST_WORD) {
        MemoSlot *slot = memo_slot(w->memo, part->hash, part->text, part->size);
        const Word *word;
        if (slot->at) {
            word = (const Word *)(w->memo->arena + slot->at - 1);
            if (word->ids <= 8) memcpy(w->ids + begin, ids_of(word), 32); /* a fixed size is faster */
            else memcpy(w->ids + begin, ids_of(word), 4 * word->ids);
            w->used += word->ids;
        } else {
            if (paths(w, part->text, part->size, 0.0f) < 0) return -1;
            follow(w, part->text, part->size);
            word = keep(w, part->hash, part->text, part->size, begin);
        }
        if (fabsf(*sum) < word->limit) {
            for (uint32_t i = 0; i < word->steps; i++) *sum += steps_of(word)[i];
            return fabsf(*sum) < FARTHEST ? 0 : -1;
        }
        w->used = begin;
    }
    if (paths(w, part->text, part->size, *sum) < 0) return -1;
    follow(w, part->text, part->size);
    *sum = w->best[part->size].score;
    return 0;
}

/* The ids of one text, behind those that are there already: how many, -1 where it is left to the library. */
static int64_t segment(Work *w, Span span) {
    Py_ssize_t length = span.at == span.end ? 0 : normalize(w, span.at, span.end);
    if (length < 0 || length > INT32_MAX / 4) return -1;
    if (reserve((void **)&w->ids, &w->ids_room, w->used + 3 * length + 10, sizeof(int32_t)) < 0) return -1;
    size_t begin = w->used;
    if (w->first >= 0) w->ids[w->used++] = w->first;
    if (w->memo == NULL) {
        if (paths(w, w->text, length, 0.0f) < 0) return -1;
        follow(w, w->text, length);
    } else {
        float sum = 0.0f;
        Py_ssize_t count = part(w, length);
        for (Py_ssize_t i = 0; i < count; i++)
            if (segment_part(w, &w->parts[i], &sum) < 0) return -1;
        if (count < 0) return -1;
    }
    if (w->last >= 0) w->ids[w->used++] = w->last;
    if (w->reverse) turn(w->ids + begin, w->ids + w->used);
    return w->used - begin;
}

/* -- what Python calls ------------------------------------------------------------------------------------------------ */

static void close_model(Model *m) {
    if (m == NULL) return;
    for (int i = 0; i < MEMOS; i++) {
        free(m->memos[i].slots);
        free(m->memos[i].arena);
    }
    free(m->nodes);
    free(m->rules);
    free(m->written);
    free(m->scores);
    free(m);
}

static void close_capsule(PyObject *capsule) { close_model(PyCapsule_GetPointer(capsule, CAPSULE)); }

/* 1: read, 0: not plain, -1: no memory. */
static int read_model(Model *m, Trie *t, Span s) {
    Span inner, rules = {NULL, NULL};
    uint64_t number, value = 0, type = UNIGRAM;
    int got, done, escapes = 1, suffix = 0;
    float lowest = INFINITY;
    m->unknown = -1;
    m->dummy_prefix = m->squeezes = m->by_word = 1;
    for (int byte = 0; byte < 256; byte++) m->bytes[byte] = -1;
    if (more_slots(t) < 0 || new_node(t, EMPTY) < 0) return -1;
    while ((got = field(&s, &number, &value, &inner)) > 0) {
        if (number == 1) done = read_piece(m, t, inner, &lowest);
        else if (number == 2) done = read_trainer(m, inner, &type, &suffix);
        else if (number == 3) done = read_normalizer(m, inner, &rules, &escapes);
        else done = 1;
        if (done < 1) return done;
    }
    if (got < 0 || type != UNIGRAM || suffix || !escapes || m->unknown < 0 || !isfinite(lowest)) return 0;
    for (int byte = 0; byte < 256; byte++)
        if (m->byte_fallback && m->bytes[byte] < 0) return 0;
    m->unknown_score = lowest - 10.0f;
    if (fabsf(m->unknown_score) > m->farthest) m->farthest = fabsf(m->unknown_score);
    if ((done = read_rules(m, rules)) < 1 || (done = place_nodes(m, t)) < 1) return done;
    find_plain(m);
    uint32_t space = m->roots[' ']; /* a run of unknown pieces must not go on after it */
    m->by_word &= space != EMPTY && m->nodes[space].id >= 0;
    return 1;
}

/* open(proto) -> model, or None where it is not a plain unigram model. */
static PyObject *open_pieces(PyObject *self, PyObject *proto) {
    (void)self;
    if (!PyBytes_Check(proto)) return PyErr_Format(PyExc_TypeError, "a model is bytes");
    Trie trie = {NULL, NULL, 0, 0, 0};
    Model *m = calloc(1, sizeof(Model));
    if (m == NULL) return PyErr_NoMemory();
    Text at = (Text)PyBytes_AS_STRING(proto);
    int done = read_model(m, &trie, (Span){at, at + PyBytes_GET_SIZE(proto)});
    free(trie.found);
    free(trie.nodes);
    if (done == 1) return PyCapsule_New(m, CAPSULE, close_capsule);
    close_model(m);
    if (done < 0) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* A memo that no other call uses now, NULL where there is none. Needs the GIL. */
static Memo *free_memo(Model *m) {
    for (int i = 0; m->by_word && i < MEMOS; i++) {
        Memo *memo = &m->memos[i];
        if (memo->busy) continue;
        if (memo->slots == NULL) memo->slots = calloc((size_t)1 << MEMO_BITS, sizeof(MemoSlot));
        if (memo->arena == NULL) memo->arena = malloc(ARENA);
        if (memo->slots == NULL || memo->arena == NULL) return NULL;
        memo->busy = 1;
        return memo;
    }
    return NULL;
}

/* The ids as one row after the other, or `width` (-1: as many as the longest row) of each row, `pad` behind shorter ones. */
static PyObject *gathered(const Work *w, const int64_t *counts, Py_ssize_t rows, int padded, Py_ssize_t width, int32_t shift, int32_t pad) {
    Py_ssize_t longest = 0;
    for (Py_ssize_t i = 0; i < rows; i++)
        if (counts[i] > longest) longest = counts[i];
    if (width < 0) width = longest;
    if (padded && width && rows > PY_SSIZE_T_MAX / 4 / width) return PyErr_NoMemory();
    PyObject *out = PyByteArray_FromStringAndSize(NULL, 4 * (padded ? rows * width : (Py_ssize_t)w->used));
    if (out == NULL) return NULL;
    int32_t *place = (int32_t *)PyByteArray_AS_STRING(out);
    const int32_t *ids = w->ids;
    for (size_t i = 0; !padded && i < w->used; i++) *place++ = (int32_t)((uint32_t)ids[i] + (uint32_t)shift);
    for (Py_ssize_t row = 0; padded && row < rows; ids += counts[row++]) {
        Py_ssize_t kept = counts[row] < width ? counts[row] : width, column = 0;
        for (; column < kept; column++) *place++ = (int32_t)((uint32_t)ids[column] + (uint32_t)shift);
        for (; column < width; column++) *place++ = pad;
    }
    return out;
}

/* encode(model, texts, first, last, reverse, shift, padded, width, pad) -> (int32 ids, int64 counts), bytearrays, or None.
 *
 * `first` and `last` stand around each row (-1: nothing does), `shift` is added to each id. None: a text is left to the library. */
static PyObject *encode(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *capsule, *texts;
    int shift, padded, pad, failed = 0;
    Py_ssize_t width;
    Work w = {0};
    if (!PyArg_ParseTuple(args, "OO!iipipni", &capsule, &PyList_Type, &texts, &w.first, &w.last, &w.reverse, &shift, &padded, &width,
                          &pad))
        return NULL;
    Model *m = PyCapsule_GetPointer(capsule, CAPSULE);
    if (m == NULL || (texts = PyList_GetSlice(texts, 0, PyList_GET_SIZE(texts))) == NULL) return NULL; /* ours: nobody can change it */
    Py_ssize_t rows = PyList_GET_SIZE(texts);
    PyObject *result = NULL, *ids = NULL, *counts = PyByteArray_FromStringAndSize(NULL, 8 * rows);
    Span *spans = PyMem_Malloc((rows + 1) * sizeof(Span));
    if (spans == NULL || counts == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < rows; i++) {
        PyObject *text = PyList_GET_ITEM(texts, i);
        if (!PyBytes_Check(text)) {
            PyErr_SetString(PyExc_TypeError, "texts are bytes");
            goto done;
        }
        Text at = (Text)PyBytes_AS_STRING(text);
        spans[i] = (Span){at, at + PyBytes_GET_SIZE(text)};
    }
    int64_t *places = (int64_t *)PyByteArray_AS_STRING(counts);
    w.model = m;
    w.memo = free_memo(m);
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < rows && !failed; i++) failed = (places[i] = segment(&w, spans[i])) < 0;
    Py_END_ALLOW_THREADS
    if (failed) result = Py_NewRef(Py_None);
    else if ((ids = gathered(&w, places, rows, padded, width, shift, pad)) != NULL) result = PyTuple_Pack(2, ids, counts);
done:
    if (w.memo != NULL) w.memo->busy = 0;
    free(w.text);
    free(w.best);
    free(w.parts);
    free(w.ids);
    PyMem_Free(spans);
    Py_XDECREF(ids);
    Py_XDECREF(counts);
    Py_DECREF(texts);
    return result;
}

static PyMethodDef methods[] = {
    {"open", open_pieces, METH_O, "open(proto) -> model or None"},
    {"encode", encode, METH_VARARGS, "encode(model, texts, first, last, reverse, shift, padded, width, pad) -> (ids, counts) or None"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "torch_towers._pieces", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__pieces(void) { return PyModule_Create(&module); }
