/* Attention of one text's one head: in floats for short texts, in bytes for long ones. */
#ifndef ATTENTION_H
#define ATTENTION_H
#include "rows.h"

/* Where the rows of one head of one text are: queries, keys and values `stride` apart. */
typedef struct {
  const float *queries, *keys, *values;
  int stride, tokens, width;
} head;

/* Room for one head; what it holds is packed as tiles read it. padded: tokens, up to the next 32. */
typedef struct {
  int32_t *keys, *values;     /* (padded, width) words */
  int32_t *queries, *weights; /* (TILE_ROWS, width) and (TILE_ROWS, padded) words: rows of a tile */
  float *scores;              /* (TILE_ROWS, padded) */
  int32_t *middles;           /* (padded) */
  float *average;             /* (width) */
} room;

INLINE int padded(int tokens) { return (tokens + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS; }

/* Turn scores into exponentials of what each is below the highest; return their sum. */
INLINE float exponentials(float *scores, int tokens) {
  floats most = all(-INFINITY), total = all(0);
  for (int t = 0; t < tokens; t += LANES)
    most = _mm512_mask_max_ps(most, before(tokens, t), most, load(scores + t));
  most = all(highest(most));
  for (int t = 0; t < tokens; t += LANES) {
    floats value = only(before(tokens, t), exponential(sub(load(scores + t), most)));
    store(scores + t, value);
    total = add(total, value);
  }
  return sum(total);
}

/* Write a row of the context as the bytes that the next product reads. */
typedef struct {
  uint8_t *read;
  int rows, hidden, first_row, first_column; /* of the batch; where this text and this head begin */
  const quantiser *by;
} context;

INLINE void put_context(const context *to, int row, int column, floats low, floats high) {
  place at = place_of(to->read, to->rows, to->hidden, to->first_row + row);
  int k = to->first_column + column;
  put(at, k, mul_add(low, load(to->by->scale + k), all(to->by->zero)));
  put(at, k + LANES, mul_add(high, load(to->by->scale + k + LANES), all(to->by->zero)));
}

/* Pack rows of floats as columns of tiles: [tokens / 32][width][32]. Of tokens that are not there, zeros. */
static void pack_keys(const head *h, int32_t *to) {
  for (int t = 0; t < h->tokens; t += LANES)
    for (int d = 0; d < h->width; d += LANES) {
      ints rows[LANES];
      for (int i = 0; i < LANES; i++)
        rows[i] = t + i < h->tokens ? load_ints((const int32_t *)h->keys + (size_t)(t + i) * h->stride + d) : _mm512_setzero_si512();
      store_transposed(rows, to + (size_t)(t / TILE_COLUMNS) * TILE_COLUMNS * h->width + d * TILE_COLUMNS + t % TILE_COLUMNS, TILE_COLUMNS);
    }
}

INLINE void copy_four(int32_t *to, const float *from) { _mm_storeu_si128((bytes *)to, _mm_loadu_si128((const bytes *)from)); }

static void attend_in_floats(const head *h, const room *at, const context *to) {
  int tokens = h->tokens, width = h->width, stride = h->stride, tiles = tiles_for(tokens), length = padded(tokens);
  int deep = (tokens + 3) / 4 * 4; /* four steps at a time */
  pack_keys(h, at->keys);
  for (int d = 0; d < width; d += TILE_COLUMNS)
    for (int t = 0; t < deep; t++)
      for (int half = 0; half < TILE_COLUMNS; half += LANES) {
        const int32_t *from = (const int32_t *)h->values + (size_t)t * stride + d + half;
        store_ints(at->values + (size_t)d * deep + t * TILE_COLUMNS + half, t < tokens ? load_ints(from) : _mm512_setzero_si512());
      }
  floats scale = all(1.0f / sqrtf((float)width));
  sums_of_tile sums;
  const float *found = (const float *)sums;
  for (int tile = 0; tile < tiles; tile++) {
    int begin = first_row(tokens, tiles, tile), height = first_row(tokens, tiles, tile + 1) - begin;
    for (int row = 0; row < height; row++) {
      const float *from = h->queries + (size_t)(begin + row) * stride;
      for (int d = 0; d < width; d += 4) copy_four(at->queries + d * height + row * 4, from + d);
    }
    for (int t = 0; t < tokens; t += TILE_COLUMNS) {
      floats_tiles[height](at->queries, at->keys + (size_t)t * width, width, sums);
      for (int row = 0; row < height; row++)
        for (int half = 0; half < TILE_COLUMNS; half += LANES)
          store(at->scores + (size_t)row * length + t + half, mul(load(found + row * TILE_COLUMNS + half), scale));
    }
    float parts[TILE_ROWS];
    for (int row = 0; row < height; row++) {
      float *scores = at->scores + (size_t)row * length;
      parts[row] = 1.0f / exponentials(scores, tokens);
      for (int t = 0; t < deep; t += 4) copy_four(at->weights + t * height + row * 4, scores + t);
    }
    for (int d = 0; d < width; d += TILE_COLUMNS) {
      floats_tiles[height](at->weights, at->values + (size_t)d * deep, deep, sums);
      for (int row = 0; row < height; row++) {
        floats part = all(parts[row]);
        put_context(to, begin + row, d, mul(load(found + row * TILE_COLUMNS), part), mul(load(found + row * TILE_COLUMNS + LANES), part));
      }
    }
  }
}

/* Keys as bytes, [tokens / 32][width / 4][32][4], and what the middle of the queries adds to each score. */
static void pack_keys_in_bytes(const head *h, float step, const room *at) {
  int words = h->width / 4;
  floats scale = all(1.0f / step);
  for (int t = 0; t < padded(h->tokens); t++) {
    int32_t *to = at->keys + (size_t)(t / TILE_COLUMNS) * TILE_COLUMNS * words + t % TILE_COLUMNS;
    int32_t total = 0;
    for (int d = 0; d < h->width; d += LANES, to += 4 * TILE_COLUMNS) {
      bytes four = _mm_setzero_si128();
      if (t < h->tokens) {
        four = as_signed(mul(load(h->keys + (size_t)t * h->stride + d), scale));
        total += _mm512_reduce_add_epi32(widened(four));
      }
      int32_t words_of[4];
      store_bytes((bytes *)words_of, four);
      for (int i = 0; i < 4; i++) to[i * TILE_COLUMNS] = words_of[i];
    }
    at->middles[t] = 128 * total;
  }
}

/* Words of four tokens: as many as four steps at a time take. */
INLINE int deep_quads(int tokens) { return (tokens + 15) / 16 * 4; }

/* Values less their average as bytes, [width / 32][tokens / 4][32][4], and the average. */
static void pack_values_in_bytes(const head *h, float step, const room *at) {
  int quads = deep_quads(h->tokens);
  floats scale = all(1.0f / step);
  for (int d = 0; d < h->width; d += LANES) {
    const float *from = h->values + d;
    floats total = all(0);
    for (int t = 0; t < h->tokens; t++) total = add(total, load(from + (size_t)t * h->stride));
    floats average = divide(total, all((float)h->tokens));
    store(at->average + d, average);
    int32_t *to = at->values + (size_t)(d / TILE_COLUMNS) * TILE_COLUMNS * quads + d % TILE_COLUMNS;
    for (int quad = 0; quad < quads; quad++, to += TILE_COLUMNS) {
      ints four = _mm512_setzero_si512();
      for (int t = 4 * quad + 3; t >= 4 * quad; t--) {
        ints one = _mm512_setzero_si512();
        if (t < h->tokens) one = widened(as_signed(mul(sub(load(from + (size_t)t * h->stride), average), scale)));
        four = _mm512_or_si512(_mm512_slli_epi32(four, 8), _mm512_and_si512(one, _mm512_set1_epi32(255)));
      }
      store_ints(to, four);
    }
  }
}

/* steps: of queries, keys, and values less their average. A weight counts as a part of the row's highest. */
static void attend_in_bytes(const head *h, const float *steps, const room *at, const context *to) {
  int tokens = h->tokens, width = h->width, tiles = tiles_for(tokens), length = padded(tokens), quads = deep_quads(tokens);
  pack_keys_in_bytes(h, steps[1], at);
  pack_values_in_bytes(h, steps[2], at);
  floats query_scale = all(1.0f / steps[0]), score_scale = all(steps[0] * steps[1] / sqrtf((float)width));
  sums_of_tile sums;
  for (int tile = 0; tile < tiles; tile++) {
    int begin = first_row(tokens, tiles, tile), height = first_row(tokens, tiles, tile + 1) - begin;
    for (int row = 0; row < height; row++)
      for (int d = 0; d < width; d += LANES) {
        floats value = mul_add(load(h->queries + (size_t)(begin + row) * h->stride + d), query_scale, all(128));
        store_bytes((bytes *)(at->queries + d / 4 * height) + row, as_unsigned(value));
      }
    for (int t = 0; t < tokens; t += TILE_COLUMNS) {
      bytes_tiles[height](at->queries, at->keys + (size_t)t * (width / 4), width / 4, sums);
      for (int half = 0; half < TILE_COLUMNS; half += LANES) {
        ints middles = load_ints(at->middles + t + half);
        for (int row = 0; row < height; row++)
          store(at->scores + (size_t)row * length + t + half,
                mul(as_floats(_mm512_sub_epi32(load_ints(sums + row * TILE_COLUMNS + half), middles)), score_scale));
      }
    }
    float parts[TILE_ROWS];
    for (int row = 0; row < height; row++) {
      float *scores = at->scores + (size_t)row * length;
      parts[row] = steps[2] / (255 * exponentials(scores, tokens));
      for (int t = 0; t < tokens; t += LANES) {
        bytes four = as_unsigned(mul(load(scores + t), all(255)));
        store_bytes((bytes *)(at->weights + t / 4 * height) + row, four);
      }
    }
    for (int d = 0; d < width; d += TILE_COLUMNS) {
      bytes_tiles[height](at->weights, at->values + (size_t)d * quads, quads, sums);
      for (int row = 0; row < height; row++) {
        const int32_t *found = sums + row * TILE_COLUMNS;
        floats part = all(parts[row]);
        put_context(to, begin + row, d, mul_add(as_floats(load_ints(found)), part, load(at->average + d)),
                    mul_add(as_floats(load_ints(found + LANES)), part, load(at->average + d + LANES)));
      }
    }
  }
}

/* For each head the softmax-weighted sum of a text's rows. sought, found: (heads, width). scores: (padded). */
static void gather(const float *rows, int tokens, int heads, int width, float scale, const float *sought, float *scores, float *found) {
  for (int i = 0; i < heads; i++, sought += width, found += width) {
    for (int t = 0; t < tokens; t++) {
      floats total = all(0);
      for (int k = 0; k < width; k += LANES) total = mul_add(load(sought + k), load(rows + (size_t)t * width + k), total);
      scores[t] = sum(total) * scale;
    }
    floats part = all(1.0f / exponentials(scores, tokens));
    for (int k = 0; k < width; k += LANES) {
      floats total = all(0);
      for (int t = 0; t < tokens; t++) total = mul_add(all(scores[t]), load(rows + (size_t)t * width + k), total);
      store(found + k, mul(total, part));
    }
  }
}
#endif
