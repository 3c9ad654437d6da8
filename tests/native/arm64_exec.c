/* Preloaded into an emulated phone's shell and tools: programs for arm64 are run by the emulator in $SLM_QEMU. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*Execve)(const char *, char *const[], char *const[]);
typedef int (*Execvp)(const char *, char *const[]);
extern char **environ;

static int is_arm64(const char *path) {
  unsigned char head[20];
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  int whole = read(file, head, sizeof head) == sizeof head;
  close(file);
  return whole && memcmp(head, "\177ELF\2", 5) == 0 && head[18] == 0xB7 && head[19] == 0;
}

int execve(const char *path, char *const argv[], char *const envp[]) {
  Execve next = (Execve)dlsym(RTLD_NEXT, "execve");
  const char *emulator = getenv("SLM_QEMU");
  if (!emulator || access(path, X_OK) != 0 || !is_arm64(path)) return next(path, argv, envp);
  int count = 0;
  while (argv[count]) count++;
  char *full[count + 4];
  full[0] = (char *)emulator;
  full[1] = "-0";
  full[2] = argv[0];
  full[3] = (char *)path;
  memcpy(full + 4, argv + 1, count * sizeof *full); /* with the null at its end */
  return next(emulator, full, envp);
}

int execv(const char *path, char *const argv[]) { return execve(path, argv, environ); }

int execvp(const char *file, char *const argv[]) {
  if (strchr(file, '/') && is_arm64(file)) return execve(file, argv, environ);
  return ((Execvp)dlsym(RTLD_NEXT, "execvp"))(file, argv);
}
