package org.slmc;

import java.nio.charset.StandardCharsets;

/**
 * Text to tokens and back, prompts, the search for the likeliest label, and answers in text: the functions of
 * slm_text.h, which tells more of each.
 *
 * <p>As in {@link Slm}, what is opened or made is a number that stays valid until it is closed or freed, and whatever
 * fails throws {@link SlmException}. A task may be shared by threads; all else is for one thread at a time. Text is
 * UTF-8 in bytes; what is not throws with status 9.
 */
public final class SlmText {
  static {
    System.loadLibrary("slm");
  }

  private SlmText() {}

  /** Maps a task file, and compares its bytes with their digest. */
  public static native long openTask(String path);

  /** Closes a task after all that was made for it; 0 is allowed. */
  public static native void closeTask(long task);

  /** What an item's fields are called, in the order in which they are given. */
  public static String[] fields(long task) {
    String[] names = new String[fieldCount(task)];
    for (int i = 0; i < names.length; i++) {
      names[i] = new String(fieldName(task, i), StandardCharsets.UTF_8);
    }
    return names;
  }

  /** What there is to choose from. */
  public static String[] labels(long task) {
    String[] labels = new String[labelCount(task)];
    for (int i = 0; i < labels.length; i++) {
      labels[i] = new String(label(task, i), StandardCharsets.UTF_8);
    }
    return labels;
  }

  /** Compares the ids of the task's golden prompts with those of where it was built. */
  public static SlmCheck checkPrompts(long task) {
    return new SlmCheck(checkPromptsOf(task));
  }

  /** Makes an encoder. */
  public static native long newEncoder(long task);

  /** Frees an encoder; 0 is allowed. */
  public static native void freeEncoder(long encoder);

  /** The ids of a text; with {@code special} the tokenizer's own stand around them. */
  public static native int[] encode(long encoder, byte[] text, boolean special);

  /** Makes a speller. */
  public static native long newSpeller(long task);

  /** Frees a speller; 0 is allowed. */
  public static native void freeSpeller(long speller);

  /** The text that one more token adds, in whole characters. */
  public static native byte[] spell(long speller, int id);

  /** What is left at the end; the next token begins another answer. */
  public static native byte[] spellEnd(long speller);

  /** Makes a search for the likeliest label. */
  public static native long newChooser(long task);

  /** Frees a chooser; 0 is allowed. */
  public static native void freeChooser(long chooser);

  /** The ids of an item's prompt and of what all labels begin with. The logits after the last are wanted first. */
  public static native int[] begin(long chooser, byte[][] fields);

  /** Takes logits, and tells after which ids, that follow those of {@link #begin}, it wants the next; none: done. */
  public static native int[] give(long chooser, float[] logits);

  /** What was decided by a search that is done; counts and times are 0, and it never abstains. */
  public static SlmDecision decision(long chooser) {
    return new SlmDecision(decisionOf(chooser));
  }

  /** Makes a writer of answers in text. */
  public static native long newWriter(long task);

  /** Frees a writer; 0 is allowed. */
  public static native void freeWriter(long writer);

  /**
   * Begins an answer, and tells the ids of the item's prompt. The logits after the last are wanted first. Where the
   * task has a grammar, such as a JSON Schema's, the answer is one that it allows.
   *
   * @param sampling null for the likeliest token each time, to the end
   * @param context how many tokens the runtime can hold
   */
  public static int[] beginAnswer(long writer, byte[][] fields, SlmSampling sampling, int context) {
    SlmSampling s = sampling == null ? SlmSampling.GREEDY : sampling;
    return beginWriter(
        writer, fields, context, s.temperature, s.topP, s.topK, s.maxTokens, s.seed, s.stops);
  }

  /** Takes logits, and writes one more token. While the answer goes on, the logits after its id are wanted next. */
  public static SlmPiece write(long writer, float[] logits) {
    return new SlmPiece(giveWriter(writer, logits));
  }

  /** The answer's ids so far, without the end token; those of a stop string are among them. */
  public static native int[] answerIds(long writer);

  /** The log-probability of each, and of the end token where it came: among all tokens. */
  public static native double[] answerLogprobs(long writer);

  private static native int[] beginWriter(
      long writer,
      byte[][] fields,
      int context,
      float temperature,
      float topP,
      int topK,
      int maxTokens,
      long seed,
      byte[][] stops);

  private static native byte[] giveWriter(long writer, float[] logits);

  private static native int fieldCount(long task);

  private static native byte[] fieldName(long task, int index);

  private static native int labelCount(long task);

  private static native byte[] label(long task, int index);

  private static native byte[] checkPromptsOf(long task);

  private static native double[] decisionOf(long chooser);
}
