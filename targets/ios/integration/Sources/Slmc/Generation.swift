import slm

/// An answer in text.
public struct Generation: Sendable {
  /// Of a task with a schema, JSON that fits it where `done` is `.ended`, else the start of such JSON. Nil where it
  /// abstains, since the bundle failed its check on this device: do then what the app does without a model.
  public let text: String?
  /// Nil where the model was not asked.
  public let done: Done?
  /// How many the model wrote, its end token apart.
  public let tokens: Int
  public let timings: Timings

  public var abstained: Bool { text == nil }

  /// What ended an answer.
  public enum Done: Sendable {
    /// The model: it is whole.
    case ended
    /// A stop string, which is not in the text.
    case stopped
    /// `Sampling.maxTokens` or the model's context, which cut it off wherever it was.
    case length
  }
}

extension Generation.Done {
  /// As the library tells it; nil while the answer goes on.
  init?(_ told: Int32) {
    switch slm_done(rawValue: .init(truncatingIfNeeded: told)) {
    case SLM_ENDED: self = .ended
    case SLM_STOPPED: self = .stopped
    case SLM_LENGTH: self = .length
    default: return nil
    }
  }
}

/// What an engine wrote.
struct Written: Sendable {
  let text: String
  let done: Generation.Done
  let promptIDs: [Int32]
  /// Without the end token; those of a stop string are among them.
  let ids: [Int32]
  /// Natural, of each id, and of the end token where it came.
  let logProbabilities: [Double]
  let timings: Timings
}

/// Puts an answer together from what becomes certain with each token, and gives each piece at once.
func collect(
  _ give: (String) -> Void, next: () throws -> (piece: String, done: Int32)
) rethrows -> (text: String, done: Generation.Done) {
  var text = ""
  while true {
    let (piece, told) = try next()
    if !piece.isEmpty {
      text += piece
      give(piece)
    }
    if let done = Generation.Done(told) { return (text, done) }
  }
}
