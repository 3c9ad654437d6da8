import CoreML
import Foundation
import slm

/// A Core ML model that reads tokens, under slm's tokenizer, prompt and search.
///
/// Not checked by the compiler: it is used by one actor.
final class Engine: @unchecked Sendable {
  static let needed = ["task.slm", "golden.jsonl", "model/model.json", "model/model.mlpackage"]

  let fields: [String]
  let labels: [String]
  /// A Core ML bundle has none.
  let refusedPrefix: String? = nil
  let runtime: Runtime
  private let task: Handle
  private let chooser: Handle
  private let golden: [GoldenItem]
  private let reader: TokenReader

  init(_ files: BundleFiles, _ manifest: Manifest, threads: Int) async throws {
    let task = try TaskFile(files.url("task.slm"))
    self.task = task.handle
    fields = task.fields
    labels = task.labels
    chooser = try Handle(needing: [task.handle], free: slm_chooser_free) {
      slm_chooser_new(task.handle.pointer, $0, $1)
    }
    golden = try GoldenItem.read(files.url("golden.jsonl"))
    let packaged = try JSONDecoder().decode(
      PackagedDecoder.self, from: Data(contentsOf: files.url("model/model.json")))
    let compiled = try await compile(
      files.url("model/model.mlpackage"), digest: manifest.digest(below: "model/model.mlpackage/"))
    let reader = try TokenReader(compiled, packaged)
    self.reader = reader
    runtime = Runtime(
      name: "coreml", version: reader.units, precision: "as stored, activations fp16", activations: nil, threads: nil)
  }

  func answer(_ texts: [String]) throws -> Answer {
    let clock = ContinuousClock()
    let before = reader.count
    let begun = clock.now
    let prompt = try begin(texts)
    let encoded = clock.now
    var logits = try reader.logits(after: prompt)
    let first = reader.count
    let prefilled = clock.now
    while let path = try give(logits) {
      logits = try reader.logits(after: prompt + path)
    }
    let all = reader.count
    return try answer(
      prompt,
      Decision.Timings(
        encode: encoded - begun,
        prefill: prefilled - encoded,
        decode: clock.now - prefilled,
        prefillTokens: first.tokens - before.tokens,
        decodeTokens: all.tokens - first.tokens,
        decodeSteps: all.calls - first.calls))
  }

  /// Nothing to tell: between two calls of the model the reader looks whether its task is cancelled.
  func cancel() {}

  /// Prompts must be read to the same tokens as where the bundle was built, and most golden items be answered as there.
  /// Not all: other chips and systems round otherwise. A model that broke is wrong nearly everywhere.
  func check() throws {
    var check = slm_check()
    try expect(slm_check_prompts(task.pointer, &check), "the golden prompts")
    guard check.failed < 0 else { throw ClassifierError("self test: " + text(zeroEnded: check.text)) }
    let wrong = try golden.filter { try labels[answer($0.texts(fields)).choice] != $0.wanted }
    guard 2 * wrong.count <= golden.count else {
      throw ClassifierError("self test: \(wrong.count) of \(golden.count) golden items are answered otherwise")
    }
  }

  private func begin(_ texts: [String]) throws -> [Int32] {
    var ids: UnsafePointer<Int32>?
    var count = 0
    let status = withTexts(texts) { slm_chooser_begin(chooser.pointer, $0, $0.count, &ids, &count) }
    try expect(status, "the prompt")
    return Array(UnsafeBufferPointer(start: ids, count: count))
  }

  /// The ids after the prompt whose next logits are wanted; nil where the search is done.
  private func give(_ logits: [Float]) throws -> [Int32]? {
    var path: UnsafePointer<Int32>?
    var count = 0
    try expect(slm_chooser_give(chooser.pointer, logits, logits.count, &path, &count), "the model's logits")
    return count == 0 ? nil : Array(UnsafeBufferPointer(start: path, count: count))
  }

  private func answer(_ prompt: [Int32], _ timings: Decision.Timings) throws -> Answer {
    var found = slm_decision()
    try expect(slm_chooser_decision(chooser.pointer, &found), "the search")
    return Answer(
      choice: Int(found.choice),
      probability: found.probability,
      unexplored: found.unexplored,
      logProbabilities: [Int(found.choice): log(Double(found.probability))],
      promptIDs: prompt,
      timings: timings)
  }

  private func expect(_ status: slm_status, _ what: String) throws {
    guard status == SLM_OK else { throw ClassifierError("\(what): status \(status.rawValue) of slm_text.h") }
  }
}

/// Compiles a package once; the system may clear the folder of caches, and then again.
private func compile(_ package: URL, digest: String) async throws -> URL {
  let kept = URL.cachesDirectory.appendingPathComponent("slmc/\(digest).mlmodelc")
  guard !FileManager.default.fileExists(atPath: kept.path) else { return kept }
  let compiled = try await MLModel.compileModel(at: package)
  try FileManager.default.createDirectory(at: kept.deletingLastPathComponent(), withIntermediateDirectories: true)
  try FileManager.default.moveItem(at: compiled, to: kept)
  return kept
}
