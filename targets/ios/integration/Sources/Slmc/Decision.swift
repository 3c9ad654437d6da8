/// What a text was found to be.
public struct Decision: Sendable {
  /// Nil where it abstains: do then what the app does without a model.
  public let label: String?
  /// Of the likeliest label among all; 0 where the model was not asked.
  public let probability: Double
  /// The likeliest label's place in `Classifier.labels`, whether it abstains or not; nil where the model was not asked.
  public let choice: Int?
  public let timings: Timings

  /// The probability is below the bundle's threshold, or the bundle failed its check on this device.
  public var abstained: Bool { label == nil }

  /// Where its time went.
  public struct Timings: Sendable {
    public internal(set) var encode = Duration.zero
    public internal(set) var prefill = Duration.zero
    public internal(set) var decode = Duration.zero
    /// Of the prompt and what all labels begin with, those tokens that were not in memory from the last time.
    public internal(set) var prefillTokens = 0
    public internal(set) var decodeTokens = 0
    /// Calls of the model after the prefill.
    public internal(set) var decodeSteps = 0
  }
}

/// What an engine found; labels are told by their places.
struct Answer: Sendable {
  let choice: Int
  let probability: Float
  /// What those labels share that were not come to.
  let unexplored: Float
  /// Natural, of each label that was come to.
  let logProbabilities: [Int: Double]
  /// In the Core ML flavour with what all labels begin with.
  let promptIDs: [Int32]
  let timings: Decision.Timings
}
