import slm

/// The library's writing of answers in text, which asks for logits.
final class Writer {
  private let handle: Handle
  private let context: Int

  /// `context`: how many tokens the model can hold.
  init(_ task: Handle, context: Int) throws {
    handle = try Handle(needing: [task], free: slm_writer_free) { slm_writer_new(task.pointer, $0, $1) }
    self.context = context
  }

  /// The prompt's ids, whose next logits are wanted first.
  func begin(_ texts: [String], _ sampling: Sampling) throws -> [Int32] {
    var ids: UnsafePointer<Int32>?
    var count = 0
    let status = withTexts(texts) { fields in
      withSampling(sampling) { slm_writer_begin(handle.pointer, fields, fields.count, $0, context, &ids, &count) }
    }
    try expect(status)
    return Array(UnsafeBufferPointer(start: ids, count: count))
  }

  /// One more token: its id, after which logits are wanted next; the text that is certain with it; and an slm_done.
  func give(_ logits: [Float]) throws -> (id: Int32, piece: String, done: Int32) {
    var id: Int32 = 0
    var piece = slm_text()
    var done: Int32 = 0
    try expect(slm_writer_give(handle.pointer, logits, logits.count, &id, &piece, &done))
    return (id, text(piece), done)
  }

  /// The answer's so far, without the end token.
  var ids: [Int32] { copied { slm_writer_ids(handle.pointer, $0) } }

  /// Of each of them, and of the end token where it came.
  var logProbabilities: [Double] { copied { slm_writer_logprobs(handle.pointer, $0) } }

  private func expect(_ status: slm_status) throws {
    guard status == SLM_OK else { throw SlmcError(String(cString: slm_writer_error_text(handle.pointer))) }
  }
}
