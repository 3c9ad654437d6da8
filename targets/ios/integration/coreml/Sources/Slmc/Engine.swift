import CoreML
import Foundation
import slm

/// A Core ML model that reads tokens, under slm's tokenizer, prompt, search and writing.
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
  /// For a task with labels.
  private let chooser: Chooser?
  /// For a task without.
  private let writer: Writer?
  private let golden: [GoldenItem]
  private let reader: TokenReader

  init(_ files: BundleFiles, _ manifest: Manifest, threads: Int) async throws {
    let task = try TaskFile(files.url("task.slm"))
    self.task = task.handle
    fields = task.fields
    labels = task.labels
    golden = try GoldenItem.read(files.url("golden.jsonl"))
    let packaged = try JSONDecoder().decode(
      PackagedDecoder.self, from: Data(contentsOf: files.url("model/model.json")))
    chooser = try task.labels.isEmpty ? nil : Chooser(task.handle)
    writer = try task.labels.isEmpty ? Writer(task.handle, context: packaged.context) : nil
    let compiled = try await compile(
      files.url("model/model.mlpackage"), digest: manifest.digest(below: "model/model.mlpackage/"))
    let reader = try TokenReader(compiled, packaged)
    self.reader = reader
    runtime = Runtime(
      name: "coreml", version: reader.units, precision: "as stored, activations fp16", activations: nil, threads: nil)
  }

  func answer(_ texts: [String]) throws -> Answer {
    guard let chooser else { throw SlmcError("the task has no labels") }
    var laps = Laps(reader)
    let prompt = try chooser.begin(texts)
    laps.encoded()
    var logits = try reader.logits(after: prompt)
    laps.prefilled()
    while let path = try chooser.give(logits) {
      logits = try reader.logits(after: prompt + path)
    }
    laps.decoded()
    let found = try chooser.decision()
    return Answer(
      choice: Int(found.choice),
      probability: found.probability,
      unexplored: found.unexplored,
      logProbabilities: [Int(found.choice): log(Double(found.probability))],
      promptIDs: prompt,
      timings: laps.timings)
  }

  /// Gives each piece of the answer as soon as it is certain.
  func write(_ texts: [String], _ sampling: Sampling, _ give: (String) -> Void) throws -> Written {
    guard let writer else { throw SlmcError("the task has labels") }
    var laps = Laps(reader)
    let prompt = try writer.begin(texts, sampling)
    laps.encoded()
    var logits = try reader.logits(after: prompt)
    laps.prefilled()
    var ids = prompt
    let found = try collect(give) {
      // Not before the last token's piece was given: reading takes most of the time.
      if ids.count > prompt.count { logits = try reader.logits(after: ids) }
      let next = try writer.give(logits)
      ids.append(next.id)
      return (next.piece, next.done)
    }
    laps.decoded()
    return Written(
      text: found.text,
      done: found.done,
      promptIDs: prompt,
      ids: writer.ids,
      logProbabilities: writer.logProbabilities,
      timings: laps.timings)
  }

  /// Nothing to tell: between two calls of the model the reader looks whether its task is cancelled.
  func cancel() {}

  /// Prompts must be read to the same tokens as where the bundle was built, and of a task with labels most golden items
  /// be answered as there. Not all: other chips and systems round otherwise. A model that broke is wrong nearly
  /// everywhere.
  func check() throws {
    var check = slm_check()
    try expect(slm_check_prompts(task.pointer, &check), "the golden prompts")
    guard check.failed < 0 else { throw SlmcError("self test: " + text(zeroEnded: check.text)) }
    guard chooser != nil else { return }
    let wrong = try golden.filter { try labels[answer($0.texts(fields)).choice] != $0.wanted }
    guard 2 * wrong.count <= golden.count else {
      throw SlmcError("self test: \(wrong.count) of \(golden.count) golden items are answered otherwise")
    }
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
