/* A network as the encoder reads it: made by Python (library.py), never changed here.
 *
 * All sizes are in numbers, not in bytes. H is the width of a row, F that of the feed-forward layer. Packed
 * weights of K inputs and N outputs lie as [N / 32][K / 4][32][4], aligned to 64 bytes.
 */
#ifndef NETWORK_H
#define NETWORK_H
#include <stdint.h>

/* Reads bytes: value = sums * scale + bias. The scale of the input is part of `scale`, and its zero point of
 * `bias`. */
typedef struct {
  int32_t inputs, outputs;
  const int8_t *weight;
  const float *scale, *bias; /* (N) */
} linear;

/* How a row becomes the bytes that a product reads: round(value * scale + zero), 0 to 255. */
typedef struct {
  const float *scale; /* (K), the smoothing of each input included */
  float zero;
} quantiser;

/* Layer norm, and the same with the quantiser of the product that reads it in its weight and bias. */
typedef struct {
  float epsilon;
  const float *weight, *bias;           /* (H) */
  const float *read_weight, *read_bias; /* (H), null where no product of bytes follows */
} norm;

/* A product whose weights and inputs have a scale for every block of 128 inputs. */
typedef struct {
  const int8_t *weight;              /* packed; null where the layer has none */
  const float *scale, *middle, *bias; /* (blocks, N): of weights, and what 128 in all inputs sums up to; (N) */
} block_linear;

typedef struct {
  linear qkv, out, up, down;
  quantiser context, active; /* before `out` and `down` */
  norm after_attention, after_feed;
  block_linear down_by_block; /* instead of `down` */
  /* Of queries, keys, and values less their average, as bytes, for long texts; 0 where there are none. */
  float steps[3];
  /* Only the first row of each text goes on from here; keys and values belong to one head each. */
  int32_t first_only;
  linear query;
  const linear *keys, *values; /* (heads) */
  quantiser first, sought, found; /* before `query`, `keys` and `values` */
} layer;

typedef struct {
  int32_t hidden, heads, feed, layers, vocabulary, positions, long_from, normalised;
  const int8_t *words;       /* (vocabulary, H) */
  const float *word_scale;   /* (vocabulary) */
  const float *position_rows; /* (positions, H) */
  norm embedded;
  const layer *layer; /* (layers) */
} network;
#endif
