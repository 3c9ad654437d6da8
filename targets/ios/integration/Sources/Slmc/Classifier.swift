import Foundation

/// Tells which label fits a text, with the model that the app carries. `Generator` is for tasks that answer in text.
///
///     let router = try await Classifier()
///     let decision = try await router.classify("wire 200 to my sister")
///     if let label = decision.label { open(label) }
///
/// Calls are answered one after another. Cancelling a task stops the model within milliseconds. Keep one while it is in
/// use, since opening reads files; it closes when the last reference goes.
public actor Classifier: Asking {
  public typealias Options = BundleOptions

  nonisolated let opened: Opened

  /// Opens a bundle in the app, where it stays: files are mapped, not copied. `bundle` nil: this package's own. Throws
  /// where its task has no labels.
  ///
  /// Checks the bundle where this device, system and library have not passed its check yet. One that fails throws, or
  /// gives nothing but abstentions, as `options` say.
  public init(bundle: Bundle? = nil, options: Options = Options()) async throws {
    opened = try await Opened.open(bundle, options, labels: true)
  }

  /// Opens a bundle's folder that the app has downloaded, and leaves as it is while it is in use. Throws where a file's
  /// digest is not the manifest's, whatever the options: the app still has the bundle before it.
  public init(folder: URL, options: Options = Options()) async throws {
    opened = try await Opened.open(folder, options, labels: true)
  }

  public nonisolated var labels: [String] { opened.manifest.labels }
  /// What `classify` is to be given; empty where the check failed.
  public nonisolated var fields: [String] { opened.engine?.fields ?? [] }
  /// What is wrong with the bundle on this device; nil where all is well.
  public nonisolated var failedCheck: String? { opened.failedCheck }
  /// Why the first answer takes longer than it could: the bundle's prefix.slm is not for this device.
  public nonisolated var refusedPrefix: String? { opened.engine?.refusedPrefix }

  /// For a task of one field.
  public func classify(_ text: String) async throws -> Decision {
    guard let engine = opened.engine else { return .notAsked }
    return try await decision(answer(engine, engine.inOrder(text)))
  }

  /// Throws where the fields are not those that `fields` names, and where the model can't answer, such as a text that
  /// is longer than its context.
  public func classify(_ texts: [String: String]) async throws -> Decision {
    guard let engine = opened.engine else { return .notAsked }
    return try await decision(answer(engine, engine.inOrder(texts)))
  }

  /// The same with all that the model told; texts are in the engine's order.
  func answer(_ engine: Engine, _ texts: [String]) async throws -> Answer {
    try await ask(engine) { try $0.answer(texts) }
  }

  private func decision(_ answer: Answer) -> Decision {
    let probability = Double(answer.probability)
    let label = probability < opened.threshold ? nil : labels[answer.choice]
    return Decision(label: label, probability: probability, choice: answer.choice, timings: answer.timings)
  }
}

extension Decision {
  fileprivate static let notAsked = Decision(label: nil, probability: 0, choice: nil, timings: Timings())
}
