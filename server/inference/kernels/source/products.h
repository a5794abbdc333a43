/* Packed rows times weights, with what follows done on each tile while it is in the first cache. */
#ifndef PRODUCTS_H
#define PRODUCTS_H
#include "rows.h"

/* Tiles of a batch that are computed before the next: their activations stay in the second cache. */
#define TILES_AT_ONCE 18

/* Sums of a row of a tile as values of 32 columns. */
typedef struct {
  floats low, high;
} row_of_tile;

INLINE row_of_tile scaled(const int32_t *sums, int row, row_of_tile scale, row_of_tile bias) {
  const int32_t *from = sums + row * TILE_COLUMNS;
  row_of_tile found = {mul_add(as_floats(load_ints(from)), scale.low, bias.low),
                       mul_add(as_floats(load_ints(from + LANES)), scale.high, bias.high)};
  return found;
}
INLINE row_of_tile load_row(const float *from) {
  row_of_tile found = {load(from), load(from + LANES)};
  return found;
}
INLINE void store_row(float *to, row_of_tile row) {
  store(to, row.low);
  store(to + LANES, row.high);
}
INLINE row_of_tile add_rows(row_of_tile a, row_of_tile b) {
  row_of_tile found = {add(a.low, b.low), add(a.high, b.high)};
  return found;
}

/* What is done with a row of a tile: written, added to what is there, or GELU and quantised. */
enum epilogue { WRITE, ADD, GELU };

/* tiles: which tiles of `rows` packed rows. to: rows of floats `stride` apart, or packed rows for GELU. */
INLINE void product(const member *me, const linear *by, const uint8_t *packed, int rows, range tiles, enum epilogue kind,
                    const quantiser *active, void *to, int stride) {
  int all_tiles = tiles_for(rows), inputs = by->inputs;
  range mine = share_of(me, by->outputs / TILE_COLUMNS);
  sums_of_tile sums;
  for (int n = mine.begin * TILE_COLUMNS; n < mine.end * TILE_COLUMNS; n += TILE_COLUMNS) {
    row_of_tile scale = load_row(by->scale + n), bias = load_row(by->bias + n);
    for (int tile = tiles.begin; tile < tiles.end; tile++) {
      int begin = first_row(rows, all_tiles, tile), height = first_row(rows, all_tiles, tile + 1) - begin;
      bytes_tiles[height]((const int32_t *)(packed + (size_t)begin * inputs), by->weight + (size_t)n * inputs, inputs / 4, sums);
      if (kind == GELU) {
        row_of_tile step = load_row(active->scale + n);
        bytes *read = (bytes *)((uint8_t *)to + (size_t)begin * by->outputs) + n / LANES * height;
        for (int row = 0; row < height; row++, read++) {
          row_of_tile value = scaled(sums, row, scale, bias);
          store_bytes(read, as_unsigned(mul_add(gelu(value.low), step.low, all(active->zero))));
          store_bytes(read + height, as_unsigned(mul_add(gelu(value.high), step.high, all(active->zero))));
        }
      } else {
        float *values = (float *)to + (size_t)begin * stride + n;
        for (int row = 0; row < height; row++, values += stride) {
          row_of_tile value = scaled(sums, row, scale, bias);
          store_row(values, kind == ADD ? add_rows(value, load_row(values)) : value);
        }
      }
    }
  }
}

INLINE range all_tiles(int rows) { return (range){0, tiles_for(rows)}; }

static __attribute__((noinline)) void product_to(const member *me, const linear *by, const uint8_t *packed, int rows, float *to, int stride) {
  product(me, by, packed, rows, all_tiles(rows), WRITE, 0, to, stride);
  wait_for_all(me);
}

static __attribute__((noinline)) void product_onto(const member *me, const linear *by, const uint8_t *packed, int rows, float *to) {
  product(me, by, packed, rows, all_tiles(rows), ADD, 0, to, by->outputs);
  wait_for_all(me);
}

/* Both products of the feed-forward layer, and GELU between them; added to `to`. active: room for packed rows. */
static __attribute__((noinline)) void feed_forward(const member *me, const layer *l, const uint8_t *packed, int rows, uint8_t *active, float *to) {
  int tiles = tiles_for(rows);
  for (int tile = 0; tile < tiles; tile += TILES_AT_ONCE) {
    range some = {tile, tile + TILES_AT_ONCE < tiles ? tile + TILES_AT_ONCE : tiles};
    product(me, &l->up, packed, rows, some, GELU, &l->active, active, 0);
    wait_for_all(me);
    product(me, &l->down, active, rows, some, ADD, 0, to, l->down.outputs);
    wait_for_all(me);
  }
}

#define BLOCK 128
#define LEAST 1e-30f

/* GELU of rows, and each block of 128 in bytes around 128, with a step of its own: steps (rows, blocks). */
static void quantise_blocks(float *values, int rows, int width, uint8_t *to, float *steps) {
  for (int row = 0; row < rows; row++, values += width) {
    place at = place_of(to, rows, width, row);
    for (int begin = 0; begin < width; begin += BLOCK, steps++) {
      floats most = all(LEAST);
      for (int k = begin; k < begin + BLOCK; k += LANES) {
        floats value = gelu(load(values + k));
        store(values + k, value);
        most = greatest(most, size(value));
      }
      *steps = highest(most) / 127;
      for (int k = begin; k < begin + BLOCK; k += LANES) put(at, k, mul_add(load(values + k), all(1 / *steps), all(128)));
    }
  }
}

/* The same as `feed_forward` where the second product has scales by block; of few rows, by one member.
 * wide: room for floats (rows, F); steps: (rows, F / 128). */
static void feed_forward_by_block(const layer *l, const uint8_t *packed, int rows, float *wide, uint8_t *active, float *steps, float *to) {
  team alone = {1, 0, 0};
  member me = {&alone, 0};
  int feed = l->up.outputs, outputs = l->down.outputs, blocks = feed / BLOCK, tiles = tiles_for(rows);
  const block_linear *by = &l->down_by_block;
  product_to(&me, &l->up, packed, rows, wide, feed);
  quantise_blocks(wide, rows, feed, active, steps);
  sums_of_tile sums;
  for (int n = 0; n < outputs; n += TILE_COLUMNS) {
    row_of_tile bias = load_row(by->bias + n);
    for (int tile = 0; tile < tiles; tile++) {
      int begin = first_row(rows, tiles, tile), height = first_row(rows, tiles, tile + 1) - begin;
      for (int row = begin; row < begin + height; row++) {
        float *values = to + (size_t)row * outputs + n;
        store_row(values, add_rows(load_row(values), bias));
      }
      for (int block = 0; block < blocks; block++) {
        const int32_t *left = (const int32_t *)(active + (size_t)begin * feed) + block * (BLOCK / 4) * height;
        bytes_tiles[height](left, by->weight + (size_t)n * feed + (size_t)block * BLOCK * TILE_COLUMNS, BLOCK / 4, sums);
        row_of_tile scale = load_row(by->scale + (size_t)block * outputs + n);
        row_of_tile middle = load_row(by->middle + (size_t)block * outputs + n);
        for (int row = 0; row < height; row++) {
          row_of_tile value = scaled(sums, row, scale, middle);
          float *values = to + (size_t)(begin + row) * outputs + n;
          floats step = all(steps[(size_t)(begin + row) * blocks + block]);
          row_of_tile before = load_row(values);
          store_row(values, (row_of_tile){mul_add(value.low, step, before.low), mul_add(value.high, step, before.high)});
        }
      }
    }
  }
}
#endif
