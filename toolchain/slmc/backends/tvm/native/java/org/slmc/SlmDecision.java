package org.slmc;

/** What {@code slm_decision} of slm.h holds. */
public final class SlmDecision {
  /** The likeliest label's index. */
  public final int choice;

  /** Its share among all labels. */
  public final float probability;

  /** What those labels share that were not looked at. */
  public final float unexplored;

  /** The probability is below what was asked for. */
  public final boolean abstained;

  public final int promptTokens;
  public final int prefillTokens;
  public final int decodeTokens;
  public final int decodeSteps;
  public final long encodeNanoseconds;
  public final long prefillNanoseconds;
  public final long decodeNanoseconds;

  /** Takes what the library tells, in the order of slm.h. */
  SlmDecision(double[] numbers) {
    choice = (int) numbers[0];
    probability = (float) numbers[1];
    unexplored = (float) numbers[2];
    abstained = numbers[3] != 0;
    promptTokens = (int) numbers[4];
    prefillTokens = (int) numbers[5];
    decodeTokens = (int) numbers[6];
    decodeSteps = (int) numbers[7];
    encodeNanoseconds = (long) numbers[8];
    prefillNanoseconds = (long) numbers[9];
    decodeNanoseconds = (long) numbers[10];
  }
}
