#include "task.h"

#include <sys/mman.h>

#include "file.h"
#include "sha256.h"

enum { VERSION = 1, ALIGNMENT = 64 };

static const char MAGIC[8] = {'S', 'L', 'M', 'T', '\r', '\n', 0x1a, '\n'};

struct header {
  char magic[8];
  uint32_t version, sections;
  uint64_t file_bytes, unused;
  uint8_t sha256[32];
};

struct entry {
  uint32_t kind, unused;
  uint64_t begin, size;
};

_Static_assert(sizeof(struct header) == 64 && sizeof(struct entry) == 24, "the file's layout");

static slm_status broken(slm_error *error, const char *what) { return slm_fail(error, SLM_BAD_FILE, "%s", what); }

static slm_status find_sections(slm_task *task, const struct header *header, slm_error *error) {
  const size_t size = task->file.size;
  if (header->sections > (size - sizeof *header) / sizeof(struct entry))
    return broken(error, "a task file of more sections than it has room for");
  const struct entry *entries = (const struct entry *)(const void *)(task->file.data + sizeof *header);
  for (uint32_t i = 0; i < header->sections; i++) {
    const struct entry *entry = &entries[i];
    if (!entry->kind || entry->kind >= SECTIONS || entry->begin % ALIGNMENT || entry->begin > size ||
        entry->size > size - entry->begin || task->sections[entry->kind].data)
      return slm_fail(error, SLM_BAD_FILE, "section %u of kind %u: not known, there twice, or beyond the file", i,
                      entry->kind);
    task->sections[entry->kind] = (struct bytes){task->file.data + entry->begin, (size_t)entry->size};
  }
  return SLM_OK;
}

static slm_status check_header(const struct bytes *file, slm_error *error) {
  const struct header *header = (const struct header *)(const void *)file->data;
  uint8_t digest[32];
  if (file->size < sizeof *header || memcmp(header->magic, MAGIC, sizeof MAGIC))
    return broken(error, "not a task file");
  if (header->version != VERSION)
    return slm_fail(error, SLM_BAD_FILE, "a task file of version %u, not %d", header->version, VERSION);
  if (header->file_bytes != file->size)
    return broken(error, "a task file of another length than it says: cut off, or more than one");
  slm_sha256(file->data + sizeof *header, file->size - sizeof *header, digest);
  return memcmp(digest, header->sha256, sizeof digest) ? broken(error, "a task file with other bytes than its digest")
                                                       : SLM_OK;
}

slm_status slm_task_read(slm_task *task, slm_error *error) {
  slm_status status = check_header(&task->file, error);
  if (!status)
    status = find_sections(task, (const struct header *)(const void *)task->file.data, error);
  if (status)
    return status;
  const char *damaged = slm_tokenizer_open(task, &task->tokenizer);
  const struct bytes prompt = section_of(task, PROMPT), choices = section_of(task, CHOICES);
  const struct bytes grammar = section_of(task, GRAMMAR), golden = section_of(task, GOLDEN);
  if (!damaged && (prompt.data ? !slm_prompt_open(prompt, &task->tokenizer, &task->prompt)
                               : choices.data || golden.data))
    damaged = "the prompt";
  if (!damaged && choices.data && !slm_choices_open(choices, task->tokenizer.count, &task->choices))
    damaged = "the choices";
  if (!damaged && grammar.data && !slm_grammar_open(grammar, &task->tokenizer, &task->grammar))
    damaged = "the grammar";
  if (!damaged && golden.data && !slm_golden_open(golden, task->prompt.fields, &task->golden))
    damaged = "the golden items";
  return damaged ? slm_fail(error, SLM_BAD_FILE, "the task file is damaged: %s", damaged) : SLM_OK;
}

slm_status slm_task_open(const char *path, slm_task **task, slm_error *error) {
  if (error)
    *error = (slm_error){SLM_OK, ""};
  if (task)
    *task = NULL;
  if (!path || !task)
    return slm_fail(error, SLM_BAD_ARGUMENT, "slm_task_open needs a path and a place for the task");
  slm_task *made = calloc(1, sizeof *made);
  if (!made)
    return slm_fail(error, SLM_NO_MEMORY, "no memory for a task");
  slm_status status = slm_map_file(path, &made->file.data, &made->file.size, error);
  if (!status)
    status = slm_task_read(made, error);
  if (status) {
    slm_task_close(made);
    return status;
  }
  *task = made;
  return SLM_OK;
}

void slm_task_close(slm_task *task) {
  if (!task)
    return;
  if (task->file.data)
    munmap((void *)(uintptr_t)task->file.data, task->file.size);
  free(task);
}
