/* Rows of floats, and the packed bytes that products read of them. */
#ifndef ROWS_H
#define ROWS_H
#include "network.h"
#include "team.h"
#include "tiles.h"

/* Where a row lies in packed rows: its first 16 bytes, and how far the next ones are. */
typedef struct {
  bytes *first;
  int stride;
} place;

INLINE place place_of(uint8_t *packed, int rows, int width, int row) {
  int tiles = tiles_for(rows), tile = (int)((((int64_t)row + 1) * tiles - 1) / rows);
  int begin = first_row(rows, tiles, tile), end = first_row(rows, tiles, tile + 1);
  place found = {(bytes *)(packed + (size_t)begin * width) + (row - begin), end - begin};
  return found;
}

/* Quantise 16 numbers of a row, from its `k`-th on. */
INLINE void put(place to, int k, floats value) { store_bytes(to.first + k / LANES * to.stride, as_unsigned(value)); }

/* Quantise rows of `width` numbers, `stride` apart, as packed rows. */
static void quantise(const float *from, int rows, int width, int stride, const quantiser *by, uint8_t *to) {
  for (int row = 0; row < rows; row++, from += stride) {
    place at = place_of(to, rows, width, row);
    for (int k = 0; k < width; k += LANES) put(at, k, mul_add(load(from + k), load(by->scale + k), all(by->zero)));
  }
}

/* Layer norm of rows in place; to `read` also the bytes that the next product reads, where one does. */
static void normalise(const member *me, const norm *by, float *rows_of, int rows, int width, uint8_t *read) {
  range mine = share_of(me, rows);
  if (!by->read_weight) read = 0;
  for (int row = mine.begin; row < mine.end; row++) {
    float *values = rows_of + (size_t)row * width;
    floats total = all(0), squares = all(0);
    for (int k = 0; k < width; k += LANES) total = add(total, load(values + k));
    floats mean = all(sum(total) / width);
    for (int k = 0; k < width; k += LANES) {
      floats deviation = sub(load(values + k), mean);
      squares = mul_add(deviation, deviation, squares);
    }
    floats inverse = all(1.0f / sqrtf(sum(squares) / width + by->epsilon));
    place at = read ? place_of(read, rows, width, row) : (place){0, 0};
    for (int k = 0; k < width; k += LANES) {
      floats value = mul(sub(load(values + k), mean), inverse);
      store(values + k, mul_add(value, load(by->weight + k), load(by->bias + k)));
      if (read) put(at, k, mul_add(value, load(by->read_weight + k), load(by->read_bias + k)));
    }
  }
  wait_for_all(me);
}
#endif
