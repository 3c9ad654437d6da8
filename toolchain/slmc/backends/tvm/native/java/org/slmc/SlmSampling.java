package org.slmc;

/** How the tokens of an answer in text are taken: {@code slm_sampling} of slm.h, which tells more of each. */
public final class SlmSampling {
  /** The likeliest token each time, to the end. */
  static final SlmSampling GREEDY = new SlmSampling(0, 0, 0, 0, 0, new byte[0][]);

  /** What logits are divided by; 0: the likeliest token is taken, and topP, topK and seed have no effect. */
  public final float temperature;

  /** Which share of the probability the tokens have between them that are drawn from; 0: all. */
  public final float topP;

  /** How many tokens are drawn from; 0: all. */
  public final int topK;

  /** How many tokens there may be; 0: as many as there is room for. */
  public final int maxTokens;

  /** All 64 bits count. */
  public final long seed;

  /** Texts in UTF-8 that end the answer, where the first of them is whole. */
  public final byte[][] stops;

  public SlmSampling(
      float temperature, float topP, int topK, int maxTokens, long seed, byte[][] stops) {
    this.temperature = temperature;
    this.topP = topP;
    this.topK = topK;
    this.maxTokens = maxTokens;
    this.seed = seed;
    this.stops = stops;
  }
}
