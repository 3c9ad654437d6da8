/// How an answer's tokens are taken: by default the likeliest each time, as many as there is room for.
public struct Sampling: Sendable {
  /// What logits are divided by, up to 1000. 0: the likeliest token is taken, and `topP`, `topK` and `seed` have no
  /// effect.
  public var temperature: Float
  /// Which share of the probability, up to 1, the tokens have between them that one is drawn from; 0: all.
  public var topP: Float
  /// How many tokens one is drawn from, the likeliest; 0: all.
  public var topK: Int
  /// 0: as many as the model's context has room for.
  public var maxTokens: Int
  /// The same seed gives the same answer, on every device whose model tells the same.
  public var seed: UInt64
  /// Texts that end the answer where the first of them is whole; none may be empty.
  public var stops: [String]

  public init(
    temperature: Float = 0, topP: Float = 0, topK: Int = 0, maxTokens: Int = 0, seed: UInt64 = 0, stops: [String] = []
  ) {
    self.temperature = temperature
    self.topP = topP
    self.topK = topK
    self.maxTokens = maxTokens
    self.seed = seed
    self.stops = stops
  }
}
