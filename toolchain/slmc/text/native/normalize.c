#include "normalize.h"

#include "utf8.h"

enum { MAP, FORM, PREPEND, STRIP, REPLACE, BYTES, KINDS };

/* ---- Tables: an entry for every character, or none.
 *
 *     uint32 pages; uint32 end; uint8 page_of[8704]; uint16 place[pages][128]; uint8 entries[end], padded to 4
 *
 * Character c has the entry at place[page_of[c >> 7]][c & 127]; none where that is 0. An entry is
 *
 *     uint8 size; uint8 note; uint8 text[size] */

enum { PAGE = 128, PAGES = CODE_POINTS / PAGE, MOST_PAGES = 256, HEAD = 2 * sizeof(uint32_t) + PAGES, ENTRY_HEAD = 2 };

struct table {
  const uint8_t *page_of;
  const uint16_t *places;
  const uint8_t *entries;
};

struct entry {
  const uint8_t *text;
  uint8_t size, note;
};

static uint32_t word_at(const uint8_t *bytes) {
  uint32_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

static size_t padded(size_t size) { return (size + 3) & ~(size_t)3; }

static size_t places_of(const uint8_t *bytes) { return (size_t)word_at(bytes) * PAGE; }

/* Bytes of the whole table. */
static size_t table_size(const uint8_t *bytes) {
  return HEAD + places_of(bytes) * sizeof(uint16_t) + padded(word_at(bytes + 4));
}

static struct table table_at(const uint8_t *bytes) {
  const uint8_t *places = bytes + HEAD, *entries = places + places_of(bytes) * sizeof(uint16_t);
  return (struct table){bytes + 8, (const uint16_t *)(const void *)places, entries};
}

static struct entry entry_at(const struct table *table, uint16_t place) {
  const uint8_t *entry = table->entries + place;
  return (struct entry){entry + ENTRY_HEAD, entry[0], entry[1]};
}

static uint16_t place_of(const struct table *table, uint32_t character) {
  return table->places[(size_t)table->page_of[character / PAGE] * PAGE + character % PAGE];
}

/* Whether a table is all there and each entry is one that `entry_valid` takes. */
static int table_valid(const uint8_t *bytes, size_t size, int (*entry_valid)(struct entry)) {
  if (size < HEAD || word_at(bytes) > MOST_PAGES || word_at(bytes + 4) > UINT16_MAX + 1u || size < table_size(bytes))
    return 0;
  const struct table table = table_at(bytes);
  const uint32_t pages = word_at(bytes), end = word_at(bytes + 4);
  for (size_t i = 0; i < PAGES; i++) {
    if (table.page_of[i] >= pages)
      return 0;
  }
  for (size_t i = 0; i < places_of(bytes); i++) {
    const uint16_t place = table.places[i];
    if (place && (place + ENTRY_HEAD > (int64_t)end || place + ENTRY_HEAD + table.entries[place] > (int64_t)end ||
                  !entry_valid(entry_at(&table, place))))
      return 0;
  }
  return 1;
}

/* ---- Text ---- */

static int is_scalar(uint32_t code) { return code < 0xd800 || (code >= 0xe000 && code < CODE_POINTS); }

static void swap(struct buffer *text, struct buffer *spare) {
  const struct buffer other = *text;
  *text = *spare;
  *spare = other;
}

/* buffer_append, which also stops steps that make a text grow without end. */
static int append(struct buffer *text, const void *bytes, size_t size) {
  return size <= NORMALIZED_MOST && text->size <= NORMALIZED_MOST - size && buffer_append(text, bytes, size);
}

static int append_character(struct buffer *text, uint32_t character) {
  uint8_t bytes[UTF8_MOST];
  return append(text, bytes, (size_t)utf8_write(bytes, character));
}

/* ---- Map: each character with an entry becomes the entry's text, with itself put in at `note` where that is not
 * NOT_ITSELF. The payload is a table. ---- */

enum { NOT_ITSELF = 255 };

static int map_entry_valid(struct entry entry) {
  if (entry.note == NOT_ITSELF)
    return utf8_valid(entry.text, entry.size);
  return entry.note <= entry.size && utf8_valid(entry.text, entry.note) &&
         utf8_valid(entry.text + entry.note, (size_t)(entry.size - entry.note));
}

static int map_valid(const uint8_t *payload, size_t size) { return table_valid(payload, size, map_entry_valid); }

static int append_entry(struct buffer *text, struct entry entry, const uint8_t *itself, int length) {
  if (entry.note == NOT_ITSELF)
    return append(text, entry.text, entry.size);
  return append(text, entry.text, entry.note) && append(text, itself, (size_t)length) &&
         append(text, entry.text + entry.note, (size_t)(entry.size - entry.note));
}

static int map(const uint8_t *payload, size_t size, struct buffer *text, struct buffer *spare) {
  (void)size;
  const struct table table = table_at(payload);
  size_t done = 0; /* of the text, in `spare` */
  int length;
  spare->size = 0;
  for (size_t at = 0; at < text->size; at += (size_t)length) {
    const uint8_t *here = text->bytes + at;
    const uint16_t place = place_of(&table, utf8_read(here, &length));
    if (!place)
      continue;
    if (!append(spare, text->bytes + done, at - done) ||
        !append_entry(spare, entry_at(&table, place), here, length))
      return 0;
    done = at + (size_t)length;
  }
  if (!done)
    return 1;
  if (!append(spare, text->bytes + done, text->size - done))
    return 0;
  swap(text, spare);
  return 1;
}

/* ---- Form: NFD, NFKD; with pairs, NFC, NFKC.
 *
 * The payload is a table, then uint32 pairs[][3] in order: first, second, what they compose to. An entry's text is the
 * character's decomposition, empty where it has none; `note` is its combining class, only the order of which matters.
 * So a character without an entry doesn't decompose, has class 0 and composes with none before it. ---- */

enum { NOTHING = CODE_POINTS, CLASSES = 256, TRIPLE = 3 * sizeof(uint32_t) };
enum { L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7, S_BASE = 0xac00, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28 };
enum { S_COUNT = L_COUNT * V_COUNT * T_COUNT };

struct pairs {
  const uint32_t *triples;
  size_t count;
};

static struct pairs pairs_of(const uint8_t *payload, size_t size) {
  const size_t table = table_size(payload);
  return (struct pairs){(const uint32_t *)(const void *)(payload + table), (size - table) / TRIPLE};
}

static int form_entry_valid(struct entry entry) { return utf8_valid(entry.text, entry.size); }

static int form_valid(const uint8_t *payload, size_t size) {
  if (!table_valid(payload, size, form_entry_valid) || (size - table_size(payload)) % TRIPLE)
    return 0;
  const struct pairs pairs = pairs_of(payload, size);
  for (size_t i = 0; i < 3 * pairs.count; i++) {
    if (!is_scalar(pairs.triples[i]))
      return 0;
  }
  return 1;
}

static int is_syllable(uint32_t character) { return character - S_BASE < S_COUNT; }

/* Whether no character has an entry or is a syllable of Hangul: then every form leaves the text as it is. */
static int is_plain(const struct table *table, const struct buffer *text) {
  int length;
  for (size_t at = 0; at < text->size; at += (size_t)length) {
    const uint32_t character = utf8_read(text->bytes + at, &length);
    if (is_syllable(character) || place_of(table, character))
      return 0;
  }
  return 1;
}

static int append_syllable(struct buffer *text, uint32_t syllable) {
  const uint32_t index = syllable - S_BASE, final = index % T_COUNT;
  return append_character(text, L_BASE + index / (V_COUNT * T_COUNT)) &&
         append_character(text, V_BASE + index / T_COUNT % V_COUNT) &&
         (!final || append_character(text, T_BASE + final));
}

static int decompose(const struct table *table, struct buffer *text, struct buffer *spare) {
  int length;
  spare->size = 0;
  for (size_t at = 0; at < text->size; at += (size_t)length) {
    const uint32_t character = utf8_read(text->bytes + at, &length);
    const uint16_t place = place_of(table, character);
    const struct entry entry = place ? entry_at(table, place) : (struct entry){0};
    const int appended = is_syllable(character) ? append_syllable(spare, character)
                         : entry.size           ? append(spare, entry.text, entry.size)
                                                : append(spare, text->bytes + at, (size_t)length);
    if (!appended)
      return 0;
  }
  swap(text, spare);
  return 1;
}

static uint8_t class_of(const struct table *table, uint32_t character) {
  const uint16_t place = place_of(table, character);
  return place ? entry_at(table, place).note : 0;
}

/* The marks in `size` bytes into the order of their classes, those of a class as they were: a counting sort, as a run
 * of marks may be as long as the text. */
static int sort_marks(const struct table *table, uint8_t *marks, size_t size, struct buffer *spare) {
  size_t start[CLASSES] = {0};
  int length;
  spare->size = 0;
  if (!buffer_reserve(spare, size))
    return 0;
  for (size_t at = 0; at < size; at += (size_t)length) {
    const uint8_t order = class_of(table, utf8_read(marks + at, &length));
    start[order] += (size_t)length;
  }
  for (size_t order = 0, end = 0; order < CLASSES; order++) {
    const size_t bytes = start[order];
    start[order] = end;
    end += bytes;
  }
  for (size_t at = 0; at < size; at += (size_t)length) {
    const uint8_t order = class_of(table, utf8_read(marks + at, &length));
    memcpy(spare->bytes + start[order], marks + at, (size_t)length);
    start[order] += (size_t)length;
  }
  memcpy(marks, spare->bytes, size);
  return 1;
}

static int reorder(const struct table *table, struct buffer *text, struct buffer *spare) {
  size_t run = 0; /* where the marks before `at` begin */
  int sorted = 1, length;
  uint8_t last = 0;
  for (size_t at = 0; at < text->size; at += (size_t)length) {
    const uint8_t order = class_of(table, utf8_read(text->bytes + at, &length));
    if (order) {
      sorted &= last <= order;
    } else {
      if (!sorted && !sort_marks(table, text->bytes + run, at - run, spare))
        return 0;
      run = at + (size_t)length;
      sorted = 1;
    }
    last = order;
  }
  return sorted || sort_marks(table, text->bytes + run, text->size - run, spare);
}

static uint32_t compose_hangul(uint32_t first, uint32_t second) {
  if (first - L_BASE < L_COUNT && second - V_BASE < V_COUNT)
    return S_BASE + ((first - L_BASE) * V_COUNT + (second - V_BASE)) * T_COUNT;
  const uint32_t final = second - T_BASE;
  if (is_syllable(first) && (first - S_BASE) % T_COUNT == 0 && final > 0 && final < T_COUNT)
    return first + final;
  return NOTHING;
}

/* What two characters make together, or NOTHING. */
static uint32_t composed(const struct pairs *pairs, uint32_t first, uint32_t second) {
  size_t low = 0, high = pairs->count;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const uint32_t *triple = pairs->triples + 3 * middle;
    if (triple[0] == first && triple[1] == second)
      return triple[2];
    if (triple[0] < first || (triple[0] == first && triple[1] < second))
      low = middle + 1;
    else
      high = middle;
  }
  return compose_hangul(first, second);
}

/* The character that is being composed and the marks after it that it didn't take: they are kept in the text itself,
 * in a place that has been read. */
struct composing {
  uint32_t starter; /* or NOTHING */
  size_t marks, size;
  uint8_t last; /* class of the last mark; 0 where there is none */
};

static int append_composed(struct buffer *spare, const struct composing *now, const struct buffer *text) {
  return (now->starter == NOTHING || append_character(spare, now->starter)) &&
         append(spare, text->bytes + now->marks, now->size);
}

static int compose(const struct table *table, const struct pairs *pairs, struct buffer *text, struct buffer *spare) {
  struct composing now = {.starter = NOTHING};
  int length;
  spare->size = 0;
  if (!buffer_reserve(spare, text->size))
    return 0;
  for (size_t at = 0; at < text->size; at += (size_t)length) {
    const uint32_t character = utf8_read(text->bytes + at, &length);
    const uint16_t place = place_of(table, character);
    const uint8_t order = place ? entry_at(table, place).note : 0;
    const int reaches = place && now.starter != NOTHING && (!now.last || now.last < order);
    const uint32_t whole = reaches ? composed(pairs, now.starter, character) : NOTHING;
    if (whole != NOTHING) {
      now.starter = whole;
    } else if (order) {
      memmove(text->bytes + now.marks + now.size, text->bytes + at, (size_t)length);
      now.size += (size_t)length;
      now.last = order;
    } else {
      if (!append_composed(spare, &now, text))
        return 0;
      now = (struct composing){.starter = character, .marks = at + (size_t)length};
    }
  }
  if (!append_composed(spare, &now, text))
    return 0;
  swap(text, spare);
  return 1;
}

static int form(const uint8_t *payload, size_t size, struct buffer *text, struct buffer *spare) {
  const struct table table = table_at(payload);
  const struct pairs pairs = pairs_of(payload, size);
  if (is_plain(&table, text))
    return 1;
  return decompose(&table, text, spare) && reorder(&table, text, spare) &&
         (!pairs.count || compose(&table, &pairs, text, spare));
}

/* ---- Prepend: the payload, before a text that is not empty. ---- */

static int prepend_valid(const uint8_t *payload, size_t size) { return utf8_valid(payload, size); }

static int prepend(const uint8_t *payload, size_t size, struct buffer *text, struct buffer *spare) {
  spare->size = 0;
  if (!text->size)
    return 1;
  if (!append(spare, payload, size) || !append(spare, text->bytes, text->size))
    return 0;
  swap(text, spare);
  return 1;
}

/* ---- Strip: characters that are taken from the ends.
 *
 *     uint32 ends, 1 for the left, 2 for the right, 3 for both; uint32 characters[] ---- */

enum { LEFT = 1, RIGHT = 2 };

static int strip_valid(const uint8_t *payload, size_t size) {
  (void)payload;
  return size >= sizeof(uint32_t) && size % sizeof(uint32_t) == 0;
}

static int is_among(const uint8_t *payload, size_t size, uint32_t character) {
  for (size_t at = sizeof(uint32_t); at < size; at += sizeof(uint32_t)) {
    if (word_at(payload + at) == character)
      return 1;
  }
  return 0;
}

static int strip(const uint8_t *payload, size_t size, struct buffer *text, struct buffer *spare) {
  (void)spare;
  size_t start = 0;
  int length;
  while (word_at(payload) & LEFT && start < text->size &&
         is_among(payload, size, utf8_read(text->bytes + start, &length)))
    start += (size_t)length;
  while (word_at(payload) & RIGHT && start < text->size) {
    size_t last = text->size - 1;
    while ((text->bytes[last] & 0xc0) == 0x80)
      last--;
    if (!is_among(payload, size, utf8_read(text->bytes + last, &length)))
      break;
    text->size = last;
  }
  text->size -= start;
  if (start)
    memmove(text->bytes, text->bytes + start, text->size);
  return 1;
}

/* ---- Replace: every place of a pattern, from the left and not overlapping.
 *
 *     uint32 size; uint8 pattern[size]; uint8 content[] ---- */

static int replace_valid(const uint8_t *payload, size_t size) {
  if (size < sizeof(uint32_t))
    return 0;
  const size_t pattern = word_at(payload), left = size - sizeof(uint32_t);
  return pattern && pattern <= left && utf8_valid(payload + 4, pattern) &&
         utf8_valid(payload + 4 + pattern, left - pattern);
}

static int replace(const uint8_t *payload, size_t size, struct buffer *text, struct buffer *spare) {
  const size_t wanted = word_at(payload);
  const uint8_t *pattern = payload + sizeof(uint32_t), *content = pattern + wanted;
  size_t done = 0; /* of the text, in `spare` */
  spare->size = 0;
  for (size_t at = 0; at < text->size && wanted <= text->size - at;) {
    if (text->bytes[at] != pattern[0] || memcmp(text->bytes + at, pattern, wanted) != 0) {
      at++;
      continue;
    }
    if (!append(spare, text->bytes + done, at - done) ||
        !append(spare, content, size - sizeof(uint32_t) - wanted))
      return 0;
    at += wanted;
    done = at;
  }
  if (!done)
    return 1;
  if (!append(spare, text->bytes + done, text->size - done))
    return 0;
  swap(text, spare);
  return 1;
}

/* ---- Bytes: every byte becomes a character. The payload is uint16 alphabet[256]. ---- */

static int bytes_valid(const uint8_t *payload, size_t size) {
  const uint16_t *alphabet = (const uint16_t *)(const void *)payload;
  if (size != 256 * sizeof *alphabet)
    return 0;
  for (int i = 0; i < 256; i++) {
    if (!is_scalar(alphabet[i]))
      return 0;
  }
  return 1;
}

static int bytes(const uint8_t *payload, size_t size, struct buffer *text, struct buffer *spare) {
  (void)size;
  const uint16_t *alphabet = (const uint16_t *)(const void *)payload;
  spare->size = 0;
  for (size_t at = 0; at < text->size; at++) {
    if (!append_character(spare, alphabet[text->bytes[at]]))
      return 0;
  }
  swap(text, spare);
  return 1;
}

/* ---- Steps ---- */

enum { STEP_HEAD = 2 * sizeof(uint32_t) };

static const struct {
  int (*valid)(const uint8_t *payload, size_t size);
  int (*run)(const uint8_t *payload, size_t size, struct buffer *text, struct buffer *spare);
} STEPS[KINDS] = {
    [MAP] = {map_valid, map},       [FORM] = {form_valid, form},          [PREPEND] = {prepend_valid, prepend},
    [STRIP] = {strip_valid, strip}, [REPLACE] = {replace_valid, replace}, [BYTES] = {bytes_valid, bytes},
};

/* Bytes of the step at `step`, of which `left` are there; 0 where it is damaged. */
static size_t step_size(const uint8_t *step, size_t left) {
  if (left < STEP_HEAD)
    return 0;
  const uint32_t kind = word_at(step);
  const size_t size = word_at(step + 4);
  if (kind >= KINDS || size > left - STEP_HEAD || padded(size) > left - STEP_HEAD ||
      !STEPS[kind].valid(step + STEP_HEAD, size))
    return 0;
  return STEP_HEAD + padded(size);
}

int slm_normalizer_open(const uint8_t *bytes, size_t size, struct normalizer *found) {
  if (size < sizeof(uint32_t) || (uintptr_t)bytes % sizeof(uint32_t))
    return 0;
  *found = (struct normalizer){bytes + sizeof(uint32_t), word_at(bytes)};
  size_t at = sizeof(uint32_t);
  for (uint32_t i = 0; i < found->count; i++) {
    const size_t step = step_size(bytes + at, size - at);
    if (!step)
      return 0;
    at += step;
  }
  return at == size;
}

int slm_normalize(const struct normalizer *normalizer, struct buffer *text, struct buffer *spare) {
  const uint8_t *step = normalizer->steps;
  for (uint32_t i = 0; i < normalizer->count; i++) {
    const size_t size = word_at(step + 4);
    if (!STEPS[word_at(step)].run(step + STEP_HEAD, size, text, spare))
      return 0;
    step += STEP_HEAD + padded(size);
  }
  return 1;
}
