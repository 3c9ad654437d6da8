package org.slmc;

/**
 * Text in, decision or text out: what slm.h tells of deciders. As in {@link Slm}, a decider is a number, for one
 * thread at a time, {@link #cancel} apart, and whatever fails throws {@link SlmException}.
 */
public final class SlmDecider {
  static {
    System.loadLibrary("slm");
  }

  private SlmDecider() {}

  /**
   * Makes a decider of a model ({@link Slm#open}) and a task ({@link SlmText#openTask}), which must outlive it.
   *
   * @param context how many tokens it can hold, 0 for the model's
   * @param threads as many as there are fast cores, 0 for one
   * @param prefix a file with what the model made of the prompt's beginning, or null: it is read at first use
   * @param abstainBelow a decision of a lower probability says that it abstains
   */
  public static native long open(
      long model, long task, int context, int threads, String prefix, float abstainBelow);

  /** Frees a decider, before its model and task; 0 is allowed. */
  public static native void close(long decider);

  /** Chooses a label for an item; the fields are UTF-8, in the order of {@link SlmText#fields}. */
  public static SlmDecision classify(long decider, byte[][] fields) {
    return new SlmDecision(decide(decider, fields));
  }

  /** From any thread: the call that is running, or else the next one, throws with status 7. */
  public static native void cancel(long decider);

  /** The prompt's ids of the last {@link #classify} or {@link #beginAnswer}. */
  public static native int[] promptIds(long decider);

  /** The log-probability of a label by the last {@link #classify}; NaN where it was not come to. */
  public static native double logprob(long decider, int choice);

  /** Decides the task's golden items, and compares with what this model said where it was built. */
  public static SlmCheck selfTest(long decider) {
    return new SlmCheck(test(decider));
  }

  /**
   * Reads an item's prompt, so that its answer can be written. Where the task has a grammar, such as a JSON Schema's,
   * the answer is one that it allows. The answer ends with the next call that reads another prompt.
   *
   * @param fields UTF-8, in the order of {@link SlmText#fields}
   * @param sampling null for the likeliest token each time, to the end
   */
  public static void beginAnswer(long decider, byte[][] fields, SlmSampling sampling) {
    SlmSampling s = sampling == null ? SlmSampling.GREEDY : sampling;
    begin(decider, fields, s.temperature, s.topP, s.topK, s.maxTokens, s.seed, s.stops);
  }

  /** Writes one more token. After {@link #cancel} the answer can go on; after another failure it can't. */
  public static SlmPiece nextPiece(long decider) {
    return new SlmPiece(next(decider));
  }

  /** The answer's ids so far, without the end token; those of a stop string are among them. */
  public static native int[] answerIds(long decider);

  /** The log-probability of each, and of the end token where it came: among all tokens. */
  public static native double[] answerLogprobs(long decider);

  private static native void begin(
      long decider,
      byte[][] fields,
      float temperature,
      float topP,
      int topK,
      int maxTokens,
      long seed,
      byte[][] stops);

  private static native byte[] next(long decider);

  private static native double[] decide(long decider, byte[][] fields);

  private static native byte[] test(long decider);
}
