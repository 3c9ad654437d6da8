#include "workload.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "json.h"

/* ---- Lines ------------------------------------------------------------------------------------------------------ */

/* The next line that is not blank; 0 at the end of the file. */
static int next_line(struct workload *w, slm_status *status, slm_error *error) {
  for (;;) {
    const ssize_t size = getline(&w->line, &w->capacity, w->file);
    if (size < 0) {
      if (!feof(w->file))
        *status = slm_fail(error, SLM_NO_FILE, "the workload can't be read: %s", strerror(errno));
      return 0;
    }
    w->number++;
    w->size = (size_t)size;
    if (strspn(w->line, " \t\r\n") < w->size)
      return 1;
  }
}

static slm_status refuse(const struct workload *w, slm_error *error, const char *what) {
  return slm_fail(error, SLM_BAD_FILE, "line %ld of the workload: %s", w->number, what);
}

static int is(const struct buffer *text, const char *word) {
  return text->size == strlen(word) && !memcmp(text->bytes, word, text->size);
}

/* ---- Ids -------------------------------------------------------------------------------------------------------- */

static void add_ids(struct json *json, struct buffer *ids) {
  int first = 1;
  while (json_element(json, &first)) {
    const int32_t id = json_number(json, 0);
    json->bad |= !buffer_append(ids, &id, sizeof id);
  }
}

static void read_ids(struct json *json, struct buffer *ids) {
  ids->size = 0;
  add_ids(json, ids);
}

static void read_lists(struct json *json, struct lists *lists) {
  int first = 1;
  lists->ids.size = lists->ends.size = 0;
  while (json_element(json, &first)) {
    add_ids(json, &lists->ids);
    const size_t end = ids_count(&lists->ids);
    json->bad |= !buffer_append(&lists->ends, &end, sizeof end);
  }
}

const int32_t *list_at(const struct lists *lists, size_t index, size_t *count) {
  const size_t *ends = (const size_t *)(const void *)lists->ends.bytes, begin = index ? ends[index - 1] : 0;
  *count = ends[index] - begin;
  return ids_of(&lists->ids) + begin;
}

/* ---- The header ------------------------------------------------------------------------------------------------- */

static void read_choices(struct workload *w, struct json *json) {
  int first = 1;
  while (json_member(json, &first, &w->key)) {
    struct lists *more = realloc(w->choices, (w->sets + 1) * sizeof *more);
    if (!more || !buffer_append(&w->names, w->key.bytes, w->key.size) || !buffer_append(&w->names, "", 1)) {
      json->bad = 1;
      return;
    }
    w->choices = more;
    more[w->sets] = (struct lists){{0}, {0}};
    read_lists(json, &more[w->sets]);
    json->bad |= !lists_count(&more[w->sets++]);
  }
}

static slm_status read_header(struct workload *w, slm_error *error) {
  struct json json = json_of(w->line, w->size);
  int first = 1, version = 0;
  w->end_id = -1;
  while (json_member(&json, &first, &w->key)) {
    if (is(&w->key, "slmc_workload"))
      version = json_number(&json, 1);
    else if (is(&w->key, "digest"))
      json_text(&json, &w->digest);
    else if (is(&w->key, "end_id"))
      w->end_id = json_number(&json, 0);
    else if (is(&w->key, "choices"))
      read_choices(w, &json);
    else
      json.bad = 1;
  }
  if (!json_done(&json) || version != 1 || !w->digest.size || w->end_id < 0)
    return refuse(w, error, "it is no header of a workload of version 1");
  return SLM_OK;
}

slm_status workload_open(const char *path, struct workload *w, slm_error *error) {
  *w = (struct workload){.file = fopen(path, "rb")};
  if (!w->file)
    return slm_fail(error, SLM_NO_FILE, "the workload %s can't be opened: %s", path, strerror(errno));
  slm_status status = SLM_OK;
  if (!next_line(w, &status, error))
    return status ? status : slm_fail(error, SLM_BAD_FILE, "the workload %s is empty", path);
  w->items = ftell(w->file);
  return read_header(w, error);
}

void workload_rewind(struct workload *w) { fseek(w->file, w->items, SEEK_SET); }

/* ---- Items ------------------------------------------------------------------------------------------------------ */

static void read_mode(struct json *json, struct item *item, struct buffer *text) {
  json_text(json, text);
  item->mode = is(text, "choose") ? CHOOSE : is(text, "score") ? SCORE : GENERATE;
  json->bad |= item->mode == GENERATE && !is(text, "generate");
}

static void add_sized(struct json *json, struct buffer *to, const struct buffer *text) {
  json->bad |= !buffer_append(to, &text->size, sizeof text->size) || !buffer_append(to, text->bytes, text->size);
}

static void read_fields(struct json *json, struct item *item, struct buffer *key) {
  struct buffer text = {0};
  int first = 1;
  item->fields = item->names.size = item->texts.size = 0;
  item->has_fields = !json_null(json);
  while (item->has_fields && json_member(json, &first, key)) {
    json_text(json, &text);
    add_sized(json, &item->names, key);
    add_sized(json, &item->texts, &text);
    item->fields++;
  }
  buffer_free(&text);
}

static void read_set(struct workload *w, struct json *json, struct item *item, struct buffer *text) {
  json_text(json, text);
  const char *name = (const char *)w->names.bytes;
  for (item->set = 0; item->set < w->sets; item->set++, name += strlen(name) + 1)
    if (is(text, name))
      return;
  json->bad = 1;
}

static void read_watch(struct json *json, struct item *item) {
  item->has_watch = !json_null(json);
  if (item->has_watch)
    read_lists(json, &item->watch);
}

static void read_value(struct workload *w, struct json *json, struct item *item, struct buffer *text) {
  if (is(&w->key, "id"))
    json_text(json, &item->id);
  else if (is(&w->key, "prompt"))
    json_skip(json);
  else if (is(&w->key, "fields"))
    read_fields(json, item, text);
  else if (is(&w->key, "input_ids"))
    read_ids(json, &item->input_ids);
  else if (is(&w->key, "mode"))
    read_mode(json, item, text);
  else if (is(&w->key, "choices"))
    read_set(w, json, item, text);
  else if (is(&w->key, "max_tokens"))
    item->max_tokens = json_number(json, 1);
  else if (is(&w->key, "ignore_end"))
    item->ignore_end = json_true(json);
  else if (is(&w->key, "score_ids"))
    read_ids(json, &item->score_ids);
  else if (is(&w->key, "watch"))
    read_watch(json, item);
  else
    json->bad = 1;
}

static void empty(const struct workload *w, struct item *item) {
  item->mode = GENERATE;
  item->id.size = item->names.size = item->texts.size = item->input_ids.size = item->score_ids.size = 0;
  item->fields = 0;
  item->set = w->sets;
  item->has_fields = item->ignore_end = item->has_watch = item->max_tokens = 0;
}

static int whole(const struct workload *w, const struct item *item) {
  if (!item->id.size || !item->input_ids.size)
    return 0;
  if (item->mode == GENERATE)
    return item->max_tokens > 0;
  if (item->mode == CHOOSE)
    return item->set < w->sets;
  return item->score_ids.size && (!item->has_watch || lists_count(&item->watch) == ids_count(&item->score_ids));
}

int workload_next(struct workload *w, struct item *item, slm_status *status, slm_error *error) {
  *status = SLM_OK;
  if (!next_line(w, status, error))
    return 0;
  struct json json = json_of(w->line, w->size);
  struct buffer text = {0};
  int first = 1;
  empty(w, item);
  while (json_member(&json, &first, &w->key))
    read_value(w, &json, item, &text);
  buffer_free(&text);
  if (!json_done(&json) || !whole(w, item))
    *status = refuse(w, error, "it is no item of a workload of version 1");
  return !*status;
}

slm_text item_field(const struct item *item, slm_text name) {
  const uint8_t *at = item->names.bytes, *text = item->texts.bytes;
  for (size_t i = 0; i < item->fields; i++) {
    size_t size, length;
    memcpy(&size, at, sizeof size);
    memcpy(&length, text, sizeof length);
    if (size == name.size && !memcmp(at + sizeof size, name.bytes, size))
      return (slm_text){(const char *)text + sizeof length, length};
    at += sizeof size + size;
    text += sizeof length + length;
  }
  return (slm_text){NULL, 0};
}
