/* Threads that help with one batch at a time, and sleep between batches. */
#ifndef CREW_H
#define CREW_H
#include "team.h"
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

typedef void (*work)(const member *me, const void *what);

typedef struct {
  team team;
  pthread_mutex_t busy; /* held while a batch runs */
  pthread_mutex_t lock; /* of what follows */
  pthread_cond_t news;
  unsigned batches; /* handed out so far */
  int hired;        /* threads beside the caller */
  pid_t process;    /* whose threads they are: a fork has none of them */
  work work;
  const void *what;
} crew;

typedef struct {
  crew *crew;
  int index;
} helper;

static void *help(void *given) {
  helper self = *(helper *)given;
  free(given);
  crew *crew = self.crew;
  unsigned seen = 0;
  for (;;) {
    pthread_mutex_lock(&crew->lock);
    while (crew->batches == seen) pthread_cond_wait(&crew->news, &crew->lock);
    seen = crew->batches;
    work work = crew->work;
    const void *what = crew->what;
    pthread_mutex_unlock(&crew->lock);
    member me = {&crew->team, self.index};
    work(&me, what);
  }
  return 0;
}

/* Hire a crew of `size` with the caller; smaller where the system gives fewer threads, null without memory. It
 * lives as long as the process: its threads sleep while there is nothing to do. */
static crew *hired(int size) {
  crew *made = calloc(1, sizeof(crew));
  if (!made) return 0;
  pthread_mutex_init(&made->busy, 0);
  pthread_mutex_init(&made->lock, 0);
  pthread_cond_init(&made->news, 0);
  for (int index = 1; index < size; index++) {
    helper *given = malloc(sizeof(helper));
    pthread_t thread;
    if (!given) break;
    *given = (helper){made, index};
    if (pthread_create(&thread, 0, help, given)) {
      free(given);
      break;
    }
    pthread_detach(thread);
    made->hired++;
  }
  made->team.size = made->hired + 1;
  made->process = getpid();
  return made;
}

/* Take the crew for a batch, and return whether it was free. */
static int taken(crew *crew) { return crew->process == getpid() && !pthread_mutex_trylock(&crew->busy); }
static void released(crew *crew) { pthread_mutex_unlock(&crew->busy); }

/* Work with the whole crew, which the caller has taken. The work's last step waits for all, so none uses `what` afterwards. */
static void work_together(crew *crew, work work, const void *what) {
  pthread_mutex_lock(&crew->lock);
  crew->work = work;
  crew->what = what;
  crew->batches++;
  pthread_cond_broadcast(&crew->news);
  pthread_mutex_unlock(&crew->lock);
  member me = {&crew->team, 0};
  work(&me, what);
}
#endif
