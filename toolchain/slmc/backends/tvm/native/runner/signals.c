/* What ended a process, where nobody waits for it who could tell. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "slm_run.h"

static int noted;

static void note(int number) {
  const unsigned char byte = (unsigned char)number;
  const ssize_t written = write(noted, &byte, sizeof byte);
  (void)written;
  raise(number); /* the default is back, which ends the process with the system's own report */
}

void slm_note_signals(int file) {
  static const int deadly[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
  struct sigaction action;
  noted = file;
  memset(&action, 0, sizeof action);
  action.sa_handler = note;
  action.sa_flags = (int)(SA_RESETHAND | SA_NODEFER);
  for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++)
    sigaction(deadly[i], &action, NULL);
}
