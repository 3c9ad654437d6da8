/// Where an answer's time went.
public struct Timings: Sendable {
  /// 0 for the native flavour's answers in text: there it is part of `prefill`.
  public internal(set) var encode = Duration.zero
  public internal(set) var prefill = Duration.zero
  public internal(set) var decode = Duration.zero
  /// Of the prompt and what all labels begin with, those tokens that were not in memory from the last time. For the
  /// native flavour's answers in text all of the prompt.
  public internal(set) var prefillTokens = 0
  public internal(set) var decodeTokens = 0
  /// Calls of the model after the prefill.
  public internal(set) var decodeSteps = 0
}
