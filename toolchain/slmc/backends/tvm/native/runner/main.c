/* The program slm-run. */
#include "slm_run.h"

int main(int count, char **words) { return slm_run(count, words); }
