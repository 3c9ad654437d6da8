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
  let timings: Timings
}
