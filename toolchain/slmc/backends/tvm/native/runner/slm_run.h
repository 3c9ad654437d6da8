/* slm-run for an app, where the system starts no loose programs. */
#ifndef SLM_RUN_H
#define SLM_RUN_H

/* What the program's `main` does: its exit code. Once in a process, which is to end soon: memory is not given back. */
int slm_run(int count, char **words);

/* From now on the number of a signal that ends the process is written to a file first, as one byte. */
void slm_note_signals(int file);

#endif
