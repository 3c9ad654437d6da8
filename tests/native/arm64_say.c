/* For arm64 without a libc: says its words and the system's machine, and ends with code 3. */
typedef unsigned long word;
static word call(word number, word first, word second, word third) {
  register word x8 __asm__("x8") = number, x0 __asm__("x0") = first, x1 __asm__("x1") = second, x2 __asm__("x2") = third;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}
static void say(const char *text) {
  word size = 0;
  while (text[size]) size++;
  call(64, 1, (word)text, size);
  call(64, 1, (word)" ", 1);
}
__attribute__((used)) static void run(word *stack) {
  char system[6][65];
  for (word i = 1; i <= stack[0]; i++) say((const char *)stack[i]);
  call(160, (word)system, 0, 0);
  say(system[4]);
  call(93, 3, 0, 0);
}
__asm__(".globl _start\n_start: mov x0, sp\nbl run");
