/* A BERT encoder: token ids in, one vector per text out.
 *
 * Theory of operation. Nearly all of the time goes into products of bytes (tiles.h). So each of them reads
 * rows that are quantised and packed already, and what follows it, scale, bias, residual, GELU and the bytes
 * that the next product reads, is done on a tile of 14 x 32 sums while that is in the first cache. Nothing
 * is written twice, and nothing is padded: the rows of all texts of a batch lie one after another, whatever
 * their lengths. Only attention looks at texts, one text and head at a time.
 *
 * A text's vector depends on its tokens alone, to the last bit: sums of bytes are exact, and whatever is
 * computed in floats is computed for one row, or one text and head, in an order of its own.
 */
#include "attention.h"
#include "crew.h"
#include "products.h"
#include <string.h>
#include <sys/mman.h>

#define EXPORTED __attribute__((visibility("default")))
enum { DONE, UNKNOWN_TOKEN, WRONG_LENGTH, NO_MEMORY, TOO_MANY };

/* Everything that one batch needs besides the network and its own tokens. */
typedef struct {
  const network *net;
  const int32_t *lengths, *begins; /* of each text */
  int texts, rows, longest;
  float *x;        /* (rows, H): what goes on from layer to layer */
  float *qkv;      /* (rows, 3 H) */
  uint8_t *read;   /* packed (rows, H): what the next product reads */
  uint8_t *active; /* packed (rows, F) */
  room *rooms;     /* one a member */
  /* Where only the first row of each text goes on: */
  float *first, *query, *sought, *found, *wide, *steps;
  uint8_t *first_read;
} batch;

static size_t carve(uint8_t **next, size_t bytes) {
  size_t at = (size_t)*next;
  *next += (bytes + 63) / 64 * 64;
  return at;
}
#define CARVE(type, count) ((type *)carve(&next, sizeof(type) * (size_t)(count)))

/* Divide memory among the parts of a batch, from `next` on; return its end. */
static uint8_t *divide_memory(batch *b, int members, uint8_t *next) {
  const network *net = b->net;
  int hidden = net->hidden, width = hidden / net->heads, length = padded(b->longest);
  b->x = CARVE(float, b->rows *(size_t)hidden);
  b->qkv = CARVE(float, b->rows *(size_t)hidden * 3);
  b->read = CARVE(uint8_t, b->rows *(size_t)hidden);
  b->active = CARVE(uint8_t, b->rows *(size_t)net->feed);
  b->first = CARVE(float, b->texts *(size_t)hidden);
  b->query = CARVE(float, b->texts *(size_t)hidden);
  b->sought = CARVE(float, b->texts *(size_t)hidden * net->heads);
  b->found = CARVE(float, b->texts *(size_t)hidden * net->heads);
  b->wide = CARVE(float, b->texts *(size_t)net->feed);
  b->steps = CARVE(float, b->texts *(size_t)(net->feed / BLOCK + 1));
  b->first_read = CARVE(uint8_t, b->texts *(size_t)hidden);
  room *rooms = CARVE(room, members);
  for (int i = 0; i < members; i++) {
    room found = {CARVE(int32_t, length *(size_t)width), CARVE(int32_t, length *(size_t)width), CARVE(int32_t, TILE_ROWS *width),
                  CARVE(int32_t, TILE_ROWS *(size_t)length), CARVE(float, TILE_ROWS *(size_t)length), CARVE(int32_t, length), CARVE(float, width)};
    if (b->rooms) rooms[i] = found;
  }
  b->rooms = rooms;
  return next;
}

static void embed(const member *me, const batch *b, const int64_t *ids) {
  const network *net = b->net;
  range mine = share_of(me, b->texts);
  for (int text = mine.begin; text < mine.end; text++)
    for (int t = 0; t < b->lengths[text]; t++) {
      int row = b->begins[text] + t;
      size_t id = (size_t)ids[row];
      floats scale = all(net->word_scale[id]);
      for (int k = 0; k < net->hidden; k += LANES) {
        floats word = mul(from_signed(net->words + id * net->hidden + k), scale);
        store(b->x + (size_t)row * net->hidden + k, add(word, load(net->position_rows + (size_t)t * net->hidden + k)));
      }
    }
  wait_for_all(me);
  normalise(me, &net->embedded, b->x, b->rows, net->hidden, b->read);
}

static void attend(const member *me, const batch *b, const layer *l) {
  const network *net = b->net;
  int hidden = net->hidden, width = hidden / net->heads;
  range mine = share_of(me, b->texts * net->heads);
  for (int i = mine.begin; i < mine.end; i++) {
    int text = i / net->heads, column = i % net->heads * width, row = b->begins[text];
    const float *from = b->qkv + (size_t)row * 3 * hidden + column;
    head h = {from, from + hidden, from + 2 * hidden, 3 * hidden, b->lengths[text], width};
    context to = {b->read, b->rows, hidden, row, column, &l->context};
    if (l->steps[0] > 0 && b->lengths[text] >= net->long_from)
      attend_in_bytes(&h, l->steps, &b->rooms[me->index], &to);
    else
      attend_in_floats(&h, &b->rooms[me->index], &to);
  }
  wait_for_all(me);
}

static void run_layer(const member *me, const batch *b, const layer *l) {
  int hidden = b->net->hidden;
  product_to(me, &l->qkv, b->read, b->rows, b->qkv, 3 * hidden);
  attend(me, b, l);
  product_onto(me, &l->out, b->read, b->rows, b->x);
  normalise(me, &l->after_attention, b->x, b->rows, hidden, b->read);
  feed_forward(me, l, b->read, b->rows, b->active, b->x);
  normalise(me, &l->after_feed, b->x, b->rows, hidden, b->read);
}

/* The last layer, for the first row of each text: it needs no keys and values of the others, see
 * `families/bert/encoder.py`. Its products are small, so one member computes them. */
static void run_first_rows(const batch *b, const layer *l) {
  const network *net = b->net;
  team alone = {1, 0, 0};
  member me = {&alone, 0};
  int hidden = net->hidden, heads = net->heads, width = hidden / heads, texts = b->texts;
  for (int text = 0; text < texts; text++)
    memcpy(b->first + (size_t)text * hidden, b->x + (size_t)b->begins[text] * hidden, sizeof(float) * hidden);
  quantise(b->first, texts, hidden, hidden, &l->first, b->first_read);
  product_to(&me, &l->query, b->first_read, texts, b->query, hidden);
  for (int i = 0; i < heads; i++) {
    quantiser by = {l->sought.scale + i * width, l->sought.zero};
    quantise(b->query + i * width, texts, width, hidden, &by, b->first_read);
    product_to(&me, &l->keys[i], b->first_read, texts, b->sought + (size_t)i * hidden, heads * hidden);
  }
  for (int text = 0; text < texts; text++) {
    size_t at = (size_t)text * heads * hidden;
    gather(b->x + (size_t)b->begins[text] * hidden, b->lengths[text], heads, hidden, 1.0f / sqrtf((float)width), b->sought + at,
           b->rooms[0].scores, b->found + at);
  }
  for (int i = 0; i < heads; i++) {
    quantise(b->found + (size_t)i * hidden, texts, hidden, heads * hidden, &l->found, b->first_read);
    product_to(&me, &l->values[i], b->first_read, texts, b->query + i * width, hidden);
  }
  quantise(b->query, texts, hidden, hidden, &l->context, b->first_read);
  product_onto(&me, &l->out, b->first_read, texts, b->first);
  normalise(&me, &l->after_attention, b->first, texts, hidden, b->first_read);
  if (l->down_by_block.weight)
    feed_forward_by_block(l, b->first_read, texts, b->wide, b->active, b->steps, b->first);
  else
    feed_forward(&me, l, b->first_read, texts, b->active, b->first);
  normalise(&me, &l->after_feed, b->first, texts, hidden, 0);
}

/* The vectors of all texts: their first rows, or the mean of all. */
static void pool(const batch *b, const float *first, float *vectors) {
  int hidden = b->net->hidden;
  for (int text = 0; text < b->texts; text++, vectors += hidden) {
    if (first)
      memcpy(vectors, first + (size_t)text * hidden, sizeof(float) * hidden);
    else
      for (int k = 0; k < hidden; k += LANES) {
        floats total = all(0);
        for (int t = 0; t < b->lengths[text]; t++) total = add(total, load(b->x + (size_t)(b->begins[text] + t) * hidden + k));
        store(vectors + k, divide(total, all((float)b->lengths[text])));
      }
    if (!b->net->normalised) continue;
    floats squares = all(0);
    for (int k = 0; k < hidden; k += LANES) squares = mul_add(load(vectors + k), load(vectors + k), squares);
    float norm = sqrtf(sum(squares));
    for (int k = 0; k < hidden && norm > 0; k += LANES) store(vectors + k, divide(load(vectors + k), all(norm)));
  }
}

/* What a batch is computed from and into. */
typedef struct {
  batch batch;
  const int64_t *ids;
  float *vectors;
} task;

static void run(const member *me, const void *what) {
  const task *of = what;
  const batch *b = &of->batch;
  const network *net = b->net;
  int whole = net->layers;
  while (whole && net->layer[whole - 1].first_only) whole--;
  embed(me, b, of->ids);
  for (int i = 0; i < whole; i++) run_layer(me, b, &net->layer[i]);
  /* subtle: the caller may be done and have freed the network, so the others read nothing of it any more. */
  if (me->index) return;
  const layer *last = &net->layer[net->layers - 1];
  if (last->first_only) run_first_rows(b, last);
  pool(b, last->first_only ? b->first : 0, of->vectors);
}

/* Memory of a thread, kept from batch to batch up to KEPT bytes, and given back when the thread ends.
 * subtle: from the kernel. What malloc gives, it may keep for itself when it is freed, for every thread. */
#define KEPT ((size_t)64 << 20)
#define PAGE ((size_t)4096)
static __thread uint8_t *memory;
static __thread size_t memory_size;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t at_end;

/* The first bytes of a mapping say how large it is; what follows is aligned. */
typedef struct {
  size_t size;
} __attribute__((aligned(64))) mapping;

static void unmap(void *given) {
  mapping *whole = (mapping *)given - 1;
  munmap(whole, whole->size);
}
static void make_key(void) { pthread_key_create(&at_end, unmap); }

/* Exchange this thread's memory for so many bytes; none for 0. */
static void keep(size_t bytes) {
  pthread_once(&once, make_key);
  if (memory) unmap(memory);
  memory = 0;
  if (bytes) {
    size_t size = (bytes + sizeof(mapping) + PAGE - 1) / PAGE * PAGE;
    mapping *whole = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (whole != MAP_FAILED) {
      whole->size = size;
      memory = (uint8_t *)(whole + 1);
    }
  }
  memory_size = memory ? bytes : 0;
  pthread_setspecific(at_end, memory);
}

static uint8_t *memory_of(size_t bytes) {
  if (bytes > memory_size) keep(bytes);
  return memory;
}

static void give_back_much(void) {
  if (memory_size > KEPT) keep(0);
}

/* Tokens of a batch: more take gigabytes, and places in it are 32-bit numbers. */
#define MOST_ROWS (1 << 22)

/* Return DONE, or what is wrong with a batch; fill in where its texts begin. */
static int examine(batch *b, const int64_t *ids, int32_t *begins) {
  for (int text = 0; text < b->texts; text++) {
    if (b->lengths[text] < 1 || b->lengths[text] > b->net->positions) return WRONG_LENGTH;
    if (b->lengths[text] > MOST_ROWS - b->rows) return TOO_MANY;
    begins[text] = b->rows;
    b->rows += b->lengths[text];
    if (b->lengths[text] > b->longest) b->longest = b->lengths[text];
  }
  for (int row = 0; row < b->rows; row++)
    if (ids[row] < 0 || ids[row] >= b->net->vocabulary) return UNKNOWN_TOKEN;
  return DONE;
}

/* Return a crew of so many threads with the caller, or null; see `hired`. */
EXPORTED crew *inkwell_crew(int32_t size) { return hired(size); }

#ifndef INKWELL_SOURCES
#define INKWELL_SOURCES "" /* compiled by hand: see `compiler.py` */
#endif
/* Return the digest of the sources that this was compiled from. */
EXPORTED const char *inkwell_sources(void) { return INKWELL_SOURCES; }

/* Return the bytes of the structures that both sides declare. */
EXPORTED int32_t inkwell_network_size(void) { return (int32_t)(sizeof(network) + sizeof(layer)); }

/* Compute vectors, float (texts, H), of token ids, one text after another; return DONE or what is wrong.
 * helpers: a crew that is free, or null; where another batch has it, the caller computes alone. */
EXPORTED int32_t inkwell_encode(const network *net, crew *helpers, const int64_t *ids, const int32_t *lengths, int32_t texts, float *vectors) {
  if (texts < 1) return DONE;
  int32_t *begins = malloc(sizeof(int32_t) * (size_t)texts);
  if (!begins) return NO_MEMORY;
  task what = {{.net = net, .lengths = lengths, .begins = begins, .texts = texts}, ids, vectors};
  int status = examine(&what.batch, ids, begins);
  if (!status) {
    int together = helpers && taken(helpers), members = together ? helpers->team.size : 1;
    uint8_t *from = memory_of((size_t)divide_memory(&what.batch, members, 0));
    if (from) {
      divide_memory(&what.batch, members, from);
      team alone = {1, 0, 0};
      member me = {&alone, 0};
      if (together)
        work_together(helpers, run, &what);
      else
        run(&me, &what);
      give_back_much();
    } else
      status = NO_MEMORY;
    if (together) released(helpers);
  }
  free(begins);
  return status;
}
