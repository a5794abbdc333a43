/* Products of a few rows with 32 columns: the inner loop of everything, with AVX512-VNNI.
 *
 * A tile is up to 14 rows by 32 columns of sums, which stay in 28 of the 32 registers while the whole depth
 * goes by. The others hold a step of the right operand and one word of the left, sent to all lanes. A word is
 * four bytes (left 0 to 255, right -128 to 127, sums whole numbers) or one float. A step is one word deep, and
 * four steps lie together:
 *   left   packed rows: for each four steps, four words of every row, one row after another
 *   right  packed columns: for each step one word of each of 32 columns, aligned to 64 bytes
 *   sums   receives rows x 32, aligned to 64 bytes
 *
 * subtle: the sums must be variables of their own. In an array GCC keeps them in memory, and the same loop
 * runs at 0.4 of this speed.
 */
#ifndef TILES_H
#define TILES_H
#include "vectors.h"

#define TILE_ROWS 14
#define TILE_COLUMNS 32

typedef int32_t sums_of_tile[TILE_ROWS * TILE_COLUMNS] __attribute__((aligned(64)));
typedef void (*tile)(const int32_t *left, const void *right, int steps, int32_t *sums);

#define EACH_1(DO) DO(0)
#define EACH_2(DO) EACH_1(DO) DO(1)
#define EACH_3(DO) EACH_2(DO) DO(2)
#define EACH_4(DO) EACH_3(DO) DO(3)
#define EACH_5(DO) EACH_4(DO) DO(4)
#define EACH_6(DO) EACH_5(DO) DO(5)
#define EACH_7(DO) EACH_6(DO) DO(6)
#define EACH_8(DO) EACH_7(DO) DO(7)
#define EACH_9(DO) EACH_8(DO) DO(8)
#define EACH_10(DO) EACH_9(DO) DO(9)
#define EACH_11(DO) EACH_10(DO) DO(10)
#define EACH_12(DO) EACH_11(DO) DO(11)
#define EACH_13(DO) EACH_12(DO) DO(12)
#define EACH_14(DO) EACH_13(DO) DO(13)

#define BEGIN_ROW(i) ints low##i = _mm512_setzero_si512(), high##i = _mm512_setzero_si512();
#define STORE_ROW(i)                            \
  store_ints(sums + i * TILE_COLUMNS, low##i);  \
  store_ints(sums + i * TILE_COLUMNS + LANES, high##i);
#define ADD_BYTES(i)                                 \
  word = _mm512_set1_epi32(left[4 * i]);             \
  low##i = _mm512_dpbusd_epi32(low##i, word, first); \
  high##i = _mm512_dpbusd_epi32(high##i, word, second);
#define FLOATS _mm512_castsi512_ps
#define ADD_FLOATS(i)                                                                  \
  word = _mm512_set1_epi32(left[4 * i]);                                               \
  low##i = _mm512_castps_si512(mul_add(FLOATS(word), FLOATS(first), FLOATS(low##i)));  \
  high##i = _mm512_castps_si512(mul_add(FLOATS(word), FLOATS(second), FLOATS(high##i)));

#define DEFINE_TILE(name, rows, add_row)                                                          \
  static __attribute__((noinline)) void name##_##rows(const int32_t *left, const void *right,     \
                                                      int steps, int32_t *sums) {                 \
    const ints *columns = right;                                                                  \
    EACH_##rows(BEGIN_ROW)                                                                        \
    for (int step = 0; step < steps; step += 4, left += 4 * rows - 4) {                           \
      _Pragma("GCC unroll 4")                                                                     \
      for (int each = 0; each < 4; each++, columns += 2, left++) {                                \
        ints first = _mm512_load_si512(columns), second = _mm512_load_si512(columns + 1), word;   \
        EACH_##rows(add_row)                                                                      \
      }                                                                                           \
    }                                                                                             \
    EACH_##rows(STORE_ROW)                                                                        \
  }
#define DEFINE_TILES(name, add_row)                                                            \
  DEFINE_TILE(name, 1, add_row) DEFINE_TILE(name, 2, add_row) DEFINE_TILE(name, 3, add_row)    \
  DEFINE_TILE(name, 4, add_row) DEFINE_TILE(name, 5, add_row) DEFINE_TILE(name, 6, add_row)    \
  DEFINE_TILE(name, 7, add_row) DEFINE_TILE(name, 8, add_row) DEFINE_TILE(name, 9, add_row)    \
  DEFINE_TILE(name, 10, add_row) DEFINE_TILE(name, 11, add_row)                                \
  DEFINE_TILE(name, 12, add_row) DEFINE_TILE(name, 13, add_row) DEFINE_TILE(name, 14, add_row) \
  static const tile name##_tiles[TILE_ROWS + 1] = {                                            \
      0,        name##_1, name##_2, name##_3,  name##_4,  name##_5,  name##_6, name##_7,       \
      name##_8, name##_9, name##_10, name##_11, name##_12, name##_13, name##_14};

/* By the number of rows. */
DEFINE_TILES(bytes, ADD_BYTES)
DEFINE_TILES(floats, ADD_FLOATS)

/* Rows are spread evenly over as few tiles as hold them, so that none is nearly empty. */
INLINE int tiles_for(int rows) { return (rows + TILE_ROWS - 1) / TILE_ROWS; }
INLINE int first_row(int rows, int tiles, int tile) { return (int)((int64_t)rows * tile / tiles); }

#endif
