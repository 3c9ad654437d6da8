/// Where an answer's time goes, with the tokens that a reader has read meanwhile.
struct Laps {
  private(set) var timings = Timings()
  private let reader: TokenReader
  private var begun = ContinuousClock.now
  private var count: (tokens: Int, calls: Int)

  init(_ reader: TokenReader) {
    self.reader = reader
    count = reader.count
  }

  mutating func encoded() {
    timings.encode = lap().time
  }

  mutating func prefilled() {
    let lap = self.lap()
    timings.prefill = lap.time
    timings.prefillTokens = lap.tokens
  }

  mutating func decoded() {
    let lap = self.lap()
    timings.decode = lap.time
    timings.decodeTokens = lap.tokens
    timings.decodeSteps = lap.calls
  }

  private mutating func lap() -> (time: Duration, tokens: Int, calls: Int) {
    let now = ContinuousClock.now
    let read = reader.count
    defer { (begun, count) = (now, read) }
    return (now - begun, read.tokens - count.tokens, read.calls - count.calls)
  }
}
