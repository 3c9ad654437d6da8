package org.slmc;

/**
 * Answers with a small language model that slmc compiled: the functions of slm.h, which tells more of each.
 *
 * <pre>{@code
 * long model = Slm.open(path, null);
 * long session = Slm.newSession(model, 0, 4);
 * Slm.prefill(session, ids);
 * float[] logits = new float[Slm.vocabSize(model)];
 * Slm.logits(session, logits);
 * }</pre>
 *
 * <p>Models and sessions are numbers that stay valid until they are closed or freed; using one after that is
 * undefined. A session is used by one thread at a time, {@link #cancel} apart. Whatever fails throws
 * {@link SlmException}.
 */
public final class Slm {
  static {
    System.loadLibrary("slm");
  }

  private Slm() {}

  /** Major version of the library times 65536, plus its minor version. */
  public static native int version();

  /**
   * Maps a weight file. It is checked to be whole in its layout; its SHA-256 is left to whoever downloads it.
   *
   * @param kernels null for the best that this CPU has, else a name as {@link #kernels} tells it
   */
  public static native long open(String path, String kernels);

  /** Closes a model after its last session; 0 is allowed. */
  public static native void close(long model);

  /** How many tokens there are: the length of logits. */
  public static native int vocabSize(long model);

  /** The most tokens that a session can hold. */
  public static native int context(long model);

  /** The CPU's kernels that are used, such as "dotprod". */
  public static native String kernels(long model);

  /**
   * Makes a session.
   *
   * @param context how many tokens it can hold, 0 for the model's
   * @param threads as many as there are fast cores, 0 for one
   */
  public static native long newSession(long model, int context, int threads);

  /** Frees a session; 0 is allowed. */
  public static native void freeSession(long session);

  /** Reads more tokens, at least one. */
  public static native void prefill(long session, int[] ids);

  /** Reads one more token. */
  public static native void decode(long session, int id);

  /** Fills in the next token's logits, natural and unnormalised, one for each token of the vocabulary. */
  public static native void logits(long session, float[] logits);

  /** Fills in the likeliest next tokens with their log-probabilities, the likeliest first. */
  public static native void topK(long session, int[] ids, float[] logprobs);

  /** The log-probability of each continuation of what was read. The session stays as it is. */
  public static native float[] continuations(long session, int[][] continuations);

  /** How many tokens the session holds. */
  public static native int position(long session);

  /** Forgets the tokens from a position on. */
  public static native void rewind(long session, int position);

  /** From any thread: the call that is running, or else the next one that reads tokens, throws with status 7. */
  public static native void cancel(long session);
}
