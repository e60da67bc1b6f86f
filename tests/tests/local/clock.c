/* A wall clock that is ahead by the seconds in a file, for programs that are loaded with it (ld.so.preload). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *ahead;

__attribute__((constructor)) static void find(void) {
  int file = open("/etc/clock-ahead", O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *seconds = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
  if (seconds != MAP_FAILED) ahead = seconds;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && ahead && clock == CLOCK_REALTIME) now->tv_sec += *ahead;
  return result;
}
