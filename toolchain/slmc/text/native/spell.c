#include "spell.h"

#include "utf8.h"

static const uint8_t REPLACEMENT[3] = {0xef, 0xbf, 0xbd}; /* U+FFFD */

void slm_spelling_clear(struct spelling *spelling) {
  buffer_free(&spelling->out);
  buffer_free(&spelling->pending);
}

void slm_spelling_restart(struct spelling *spelling) {
  spelling->pending.size = 0;
  spelling->begun = 0;
  spelling->stripped = 0;
}

/* Append text; where the answer begins, without some characters. */
static int write_text(struct spelling *s, const uint8_t *text, size_t size) {
  while (size && s->stripped < s->tokenizer->strip_most) {
    int length;
    if (utf8_read(text, &length) != s->tokenizer->strip) {
      s->stripped = s->tokenizer->strip_most;
      break;
    }
    s->stripped++;
    text += length;
    size -= (size_t)length;
  }
  return buffer_append(&s->out, text, size);
}

/* Whole characters of what is pending, U+FFFD for what can't become one; with `all` for what is cut off too. */
static int write_whole(struct spelling *s, int all) {
  size_t at = 0;
  while (at < s->pending.size) {
    int bad;
    const size_t left = s->pending.size - at;
    const int length = utf8_check(s->pending.bytes + at, left, &bad);
    if (!length && (size_t)bad == left && !all && utf8_length(s->pending.bytes[at]) > bad &&
        s->pending.bytes[at] >= 0xc2 && s->pending.bytes[at] <= 0xf4)
      break; /* more of it may come */
    if (!(length ? write_text(s, s->pending.bytes + at, (size_t)length) : write_text(s, REPLACEMENT, 3)))
      return 0;
    at += (size_t)(length ? length : bad);
  }
  if (at) {
    s->pending.size -= at;
    memmove(s->pending.bytes, s->pending.bytes + at, s->pending.size);
  }
  return 1;
}

/* A run of byte tokens has ended: it is text, or U+FFFD for each. */
static int write_run(struct spelling *s) {
  const size_t size = s->pending.size;
  s->pending.size = 0;
  if (utf8_valid(s->pending.bytes, size))
    return write_text(s, s->pending.bytes, size);
  for (size_t i = 0; i < size; i++) {
    if (!write_text(s, REPLACEMENT, sizeof REPLACEMENT))
      return 0;
  }
  return 1;
}

int slm_spell_id(struct spelling *s, int32_t id) {
  const struct tokenizer *t = s->tokenizer;
  s->out.size = 0;
  if (id < 0 || (uint32_t)id >= t->count || t->kinds[id] & (KIND_SPECIAL | KIND_NONE))
    return 1;
  size_t size;
  const uint8_t *piece = string_at(s->begun ? &t->pieces : &t->first_pieces, (uint32_t)id, &size);
  s->begun = 1;
  if (t->spelling & SPELL_RAW)
    return buffer_append(&s->pending, piece, size) && write_whole(s, 0);
  if (t->kinds[id] & KIND_BYTE)
    return buffer_append(&s->pending, piece, size);
  return write_run(s) && write_text(s, piece, size);
}

int slm_spell_rest(struct spelling *s) {
  s->out.size = 0;
  const int written = s->tokenizer->spelling & SPELL_RAW ? write_whole(s, 1) : write_run(s);
  slm_spelling_restart(s);
  return written;
}
