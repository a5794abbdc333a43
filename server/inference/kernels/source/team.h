/* Threads that compute one batch together: every member runs the same functions and does its share of each.
 *
 * Between two steps all wait for each other. They wait actively, for a step takes microseconds; a member that
 * waits long gives its core away, since another one may have none.
 */
#ifndef TEAM_H
#define TEAM_H
#include "vectors.h"
#include <sched.h>
#include <stdatomic.h>

typedef struct {
  int size;
  atomic_int arrived, round;
} team;

typedef struct {
  team *team;
  int index;
} member;

typedef struct {
  int begin, end;
} range;

/* The share of a member in `number` pieces of work. */
INLINE range share_of(const member *me, int number) {
  int size = me->team->size;
  range found = {(int)((int64_t)number * me->index / size), (int)((int64_t)number * (me->index + 1) / size)};
  return found;
}

#define SPINS 2000

static inline void wait_for_all(const member *me) {
  team *team = me->team;
  if (team->size == 1) return;
  int round = atomic_load_explicit(&team->round, memory_order_acquire);
  if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->size - 1) {
    atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&team->round, round + 1, memory_order_release);
    return;
  }
  for (int spins = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round; spins++) {
    if (spins < SPINS)
      _mm_pause();
    else
      sched_yield();
  }
}
#endif
