import Foundation
import slm

/// slm's own decider, on the CPU.
///
/// Not checked by the compiler: it is used by one actor, but for `cancel`.
final class Engine: @unchecked Sendable {
  static let needed = ["task.slm", "model/model.slm", "model/model.json"]

  let fields: [String]
  let labels: [String]
  let refusedPrefix: String?
  let runtime: Runtime
  private let decider: Handle

  init(_ files: BundleFiles, _ manifest: Manifest, threads: Int) async throws {
    let task = try TaskFile(files.url("task.slm"))
    let weights = files.url("model/model.slm").path
    let model = try Handle(free: slm_close) { slm_open(weights, nil, $0, $1) }
    let prefix = manifest.files["prefix.slm"] == nil ? nil : files.url("prefix.slm")
    let opened = try Engine.open(model, task.handle, threads, prefix)
    decider = opened.decider
    refusedPrefix = opened.refusedPrefix
    fields = task.fields
    labels = task.labels
    runtime = try Engine.describe(model, files, threads)
  }

  /// A prefix of another library or other kernels is no reason to fail: then the first decision reads it.
  private static func open(
    _ model: Handle, _ task: Handle, _ threads: Int, _ prefix: URL?
  ) throws -> (decider: Handle, refusedPrefix: String?) {
    guard let prefix else { return (try newDecider(model, task, threads, nil), nil) }
    do {
      return (try prefix.path.withCString { try newDecider(model, task, threads, $0) }, nil)
    } catch {
      return (try newDecider(model, task, threads, nil), "\(error)")
    }
  }

  private static func newDecider(
    _ model: Handle, _ task: Handle, _ threads: Int, _ prefix: UnsafePointer<CChar>?
  ) throws -> Handle {
    var options = slm_decider_options(context: 0, threads: Int32(threads), prefix: prefix, abstain_below: 0)
    return try Handle(needing: [model, task], free: slm_decider_free) {
      slm_decider_new(model.pointer, task.pointer, &options, $0, $1)
    }
  }

  private static func describe(_ model: Handle, _ files: BundleFiles, _ threads: Int) throws -> Runtime {
    let compiled = try JSONDecoder().decode(
      CompiledDecoder.self, from: Data(contentsOf: files.url("model/model.json")))
    var info = slm_model_info()
    slm_model_info_get(model.pointer, &info)
    return Runtime(
      name: "slm",
      version: "\(libraryVersion), \(String(cString: info.kernels))",
      precision: compiled.bits.map { "int\($0)" }.joined(separator: " and "),
      activations: compiled.activations,
      threads: threads)
  }

  func answer(_ texts: [String]) throws -> Answer {
    var found = slm_decision()
    try run { withTexts(texts) { slm_classify(decider.pointer, $0, $0.count, &found) } }
    return answer(found)
  }

  /// Gives each piece of the answer as soon as it is certain.
  func write(_ texts: [String], _ sampling: Sampling, _ give: (String) -> Void) throws -> Written {
    let clock = ContinuousClock()
    let begun = clock.now
    try run {
      withTexts(texts) { fields in
        withSampling(sampling) { slm_answer_begin(decider.pointer, fields, fields.count, $0) }
      }
    }
    let prefilled = clock.now
    let found = try collect(give) {
      var piece = slm_text()
      var done: Int32 = 0
      try run { slm_answer_next(decider.pointer, &piece, &done) }
      return (text(piece), done)
    }
    return written(found.text, found.done, prefill: prefilled - begun, decode: clock.now - prefilled)
  }

  /// From any thread.
  func cancel() {
    slm_decider_cancel(decider.pointer)
  }

  /// Asks the golden items: they are answered as where the bundle was built, to the bit, or something broke.
  func check() throws {
    var check = slm_check()
    guard slm_self_test(decider.pointer, &check) == SLM_OK else { throw failure() }
    guard check.failed < 0 else { throw SlmcError("self test: " + text(zeroEnded: check.text)) }
  }

  /// A cancellation that came too late for its own call ends the next one, which is then made again; an answer in text
  /// goes on from where it was.
  private func run(_ call: () -> slm_status) throws {
    var status = SLM_OK
    repeat {
      status = call()
    } while status == SLM_CANCELLED && !Task.isCancelled
    guard status != SLM_CANCELLED else { throw CancellationError() }
    guard status == SLM_OK else { throw failure() }
  }

  private func failure() -> SlmcError {
    SlmcError(String(cString: slm_decider_error_text(decider.pointer)))
  }

  private func answer(_ found: slm_decision) -> Answer {
    let told = labels.indices.map { ($0, slm_choice_logprob(decider.pointer, Int32($0))) }
    return Answer(
      choice: Int(found.choice),
      probability: found.probability,
      unexplored: found.unexplored,
      logProbabilities: Dictionary(uniqueKeysWithValues: told.filter { !$0.1.isNaN }),
      promptIDs: copied { slm_prompt_ids(decider.pointer, $0) },
      timings: Timings(
        encode: .nanoseconds(found.encode_nanoseconds),
        prefill: .nanoseconds(found.prefill_nanoseconds),
        decode: .nanoseconds(found.decode_nanoseconds),
        prefillTokens: Int(found.prefill_tokens),
        decodeTokens: Int(found.decode_tokens),
        decodeSteps: Int(found.decode_steps)))
  }

  private func written(_ text: String, _ done: Generation.Done, prefill: Duration, decode: Duration) -> Written {
    let prompt: [Int32] = copied { slm_prompt_ids(decider.pointer, $0) }
    let told: [Double] = copied { slm_answer_logprobs(decider.pointer, $0) }
    // The first is told by the prefill, each other one by a token that was read.
    let read = told.count - 1
    return Written(
      text: text,
      done: done,
      promptIDs: prompt,
      ids: copied { slm_answer_ids(decider.pointer, $0) },
      logProbabilities: told,
      timings: Timings(
        prefill: prefill, decode: decode, prefillTokens: prompt.count, decodeTokens: read, decodeSteps: read))
  }
}

/// What of model.json is needed here.
struct CompiledDecoder: Decodable {
  let activations: String
  let bits: [Int]

  enum CodingKeys: String, CodingKey {
    case activations, bits
  }
}
