import Foundation
import slm

/// Owns what the library made, and keeps alive what that needs.
///
/// Not checked by the compiler: a task or a model is read-only; all else is used by the one actor that has its
/// engine, but for `slm_decider_cancel`, which may come from any thread.
final class Handle: @unchecked Sendable {
  let pointer: OpaquePointer
  private let needed: [Handle]
  private let free: (OpaquePointer?) -> Void

  init(
    needing needed: [Handle] = [],
    free: @escaping (OpaquePointer?) -> Void,
    make: (UnsafeMutablePointer<OpaquePointer?>, UnsafeMutablePointer<slm_error>) -> slm_status
  ) throws {
    var made: OpaquePointer?
    var error = slm_error()
    let status = make(&made, &error)
    guard status == SLM_OK, let pointer = made else { throw SlmcError(text(zeroEnded: error.text)) }
    self.pointer = pointer
    self.needed = needed
    self.free = free
  }

  deinit {
    free(pointer)
  }
}

var libraryVersion: String {
  "\(slm_version() >> 16).\(slm_version() & 0xFFFF)"
}

/// A task file: tokenizer, prompt, and what may be answered. The library compares it with its own digest.
struct TaskFile {
  let handle: Handle
  let fields: [String]
  let labels: [String]

  init(_ url: URL) throws {
    handle = try Handle(free: slm_task_close) { slm_task_open(url.path, $0, $1) }
    let task = handle.pointer
    fields = (0..<slm_field_count(task)).map { text(slm_field_name(task, $0)) }
    labels = (0..<slm_label_count(task)).map { text(slm_label(task, $0)) }
  }
}

/// Lends texts to the library for the time of a call.
func withTexts<Found>(_ texts: [String], _ body: ([slm_text]) throws -> Found) rethrows -> Found {
  // Each with its zero, so that an empty text has an address too.
  let bytes = texts.flatMap { Array($0.utf8CString) }
  return try bytes.withUnsafeBufferPointer { buffer in
    var place = 0
    let lent = texts.map { text -> slm_text in
      defer { place += text.utf8.count + 1 }
      return slm_text(bytes: buffer.baseAddress.map { $0 + place }, size: text.utf8.count)
    }
    return try body(lent)
  }
}

/// Lends to the library how an answer is to be written, for the time of a call. It refuses what is out of range; a
/// count that is too large for its type is as good as the largest.
func withSampling<Found>(_ asked: Sampling, _ body: (UnsafePointer<slm_sampling>) throws -> Found) rethrows -> Found {
  try withTexts(asked.stops) { stops in
    try stops.withUnsafeBufferPointer { lent in
      let sampling = slm_sampling(
        temperature: asked.temperature,
        top_p: asked.topP,
        top_k: Int32(clamping: asked.topK),
        max_tokens: Int32(clamping: asked.maxTokens),
        seed: asked.seed,
        stops: lent.baseAddress,
        stop_count: lent.count)
      return try withUnsafePointer(to: sampling, body)
    }
  }
}

/// Copies an array of the library's, which tells its length.
func copied<Element>(_ lend: (UnsafeMutablePointer<Int>) -> UnsafePointer<Element>?) -> [Element] {
  var count = 0
  let start = lend(&count)
  return Array(UnsafeBufferPointer(start: start, count: count))
}

func text(_ found: slm_text) -> String {
  String(decoding: UnsafeRawBufferPointer(start: found.bytes, count: found.size), as: UTF8.self)
}

/// Of a C array, which Swift sees as a tuple.
func text<Characters>(zeroEnded characters: Characters) -> String {
  withUnsafeBytes(of: characters) { bytes in
    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
  }
}
