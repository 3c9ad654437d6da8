import Foundation

/// Tells which label fits a text, with the model that the app carries.
///
///     let router = try await Classifier()
///     let decision = try await router.classify("wire 200 to my sister")
///     if let label = decision.label { open(label) }
///
/// Calls are answered one after another. Cancelling a task stops the model within milliseconds. Keep one while it is in
/// use, since opening reads files; it closes when the last reference goes.
public actor Classifier {
  nonisolated let opened: Opened

  /// Opens a bundle in the app, where it stays: files are mapped, not copied. `bundle` nil: this package's own.
  ///
  /// Checks the bundle where this device, system and library have not passed its check yet. One that fails throws, or
  /// gives nothing but abstentions, as `options` say.
  public init(bundle: Bundle? = nil, options: Options = Options()) async throws {
    let found = bundle ?? Bundle.module
    let files = BundleFiles(folder: found.resourceURL ?? found.bundleURL)
    opened = try await Opened.open(files, files.manifest(), options)
  }

  /// Opens a bundle's folder that the app has downloaded, and leaves as it is while it is in use. Throws where a file's
  /// digest is not the manifest's, whatever the options: the app still has the bundle before it.
  public init(folder: URL, options: Options = Options()) async throws {
    let files = BundleFiles(folder: folder)
    let manifest = try files.manifest()
    try files.check(manifest, Engine.needed, digests: true)
    opened = try await Opened.open(files, manifest, options)
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
    guard engine.fields.count == 1 else {
      throw ClassifierError("the task has the fields \(engine.fields): give each of them")
    }
    return try await decision(answer(engine, [text]))
  }

  /// Throws where the fields are not those that `fields` names, and where the model can't answer, such as a text that
  /// is longer than its context.
  public func classify(_ texts: [String: String]) async throws -> Decision {
    guard opened.engine != nil else { return .notAsked }
    return try await decision(answer(texts))
  }

  /// The same with all that the model told.
  func answer(_ texts: [String: String]) async throws -> Answer {
    guard let engine = opened.engine else { throw ClassifierError(opened.failedCheck ?? "") }
    let inOrder = engine.fields.compactMap { texts[$0] }
    guard inOrder.count == engine.fields.count, inOrder.count == texts.count else {
      throw ClassifierError("the fields are \(texts.keys.sorted()), not \(engine.fields)")
    }
    return try await answer(engine, inOrder)
  }

  private func answer(_ engine: Engine, _ texts: [String]) async throws -> Answer {
    try Task.checkCancellation()
    return try await withTaskCancellationHandler {
      // By way of a method of the actor, whose turn lasts until it returns: an engine has no room for two.
      try ask(engine, texts)
    } onCancel: {
      engine.cancel()
    }
  }

  private func ask(_ engine: Engine, _ texts: [String]) throws -> Answer {
    try engine.answer(texts)
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
