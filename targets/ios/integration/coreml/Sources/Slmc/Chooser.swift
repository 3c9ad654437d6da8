import slm

/// The library's search for the likeliest label, which asks for logits.
final class Chooser {
  private let handle: Handle

  init(_ task: Handle) throws {
    handle = try Handle(needing: [task], free: slm_chooser_free) { slm_chooser_new(task.pointer, $0, $1) }
  }

  /// The ids of the prompt and of what all labels begin with, whose next logits are wanted first.
  func begin(_ texts: [String]) throws -> [Int32] {
    var ids: UnsafePointer<Int32>?
    var count = 0
    let status = withTexts(texts) { slm_chooser_begin(handle.pointer, $0, $0.count, &ids, &count) }
    try expect(status, "the prompt")
    return Array(UnsafeBufferPointer(start: ids, count: count))
  }

  /// The ids after those whose next logits are wanted; nil where the search is done.
  func give(_ logits: [Float]) throws -> [Int32]? {
    var path: UnsafePointer<Int32>?
    var count = 0
    try expect(slm_chooser_give(handle.pointer, logits, logits.count, &path, &count), "the model's logits")
    return count == 0 ? nil : Array(UnsafeBufferPointer(start: path, count: count))
  }

  /// Once the search is done.
  func decision() throws -> slm_decision {
    var found = slm_decision()
    try expect(slm_chooser_decision(handle.pointer, &found), "the search")
    return found
  }
}

/// For what tells a status, and no text with it.
func expect(_ status: slm_status, _ what: String) throws {
  guard status == SLM_OK else { throw SlmcError("\(what): status \(status.rawValue) of slm_text.h") }
}
