import Foundation

/// Answers in text, with the model that the app carries. `Classifier` is for tasks with labels.
///
///     let reader = try await Generator()
///     let answer = try await reader.generate("a table for 7 on Friday")
///     if let text = answer.text, answer.done == .ended {
///       order(try JSONDecoder().decode(Order.self, from: Data(text.utf8)))
///     }
///
/// Where the task has a JSON Schema, as tasks that extract have, nothing but JSON that fits it can be written.
///
/// Calls are answered one after another, each to its end. Cancelling a task stops the model within milliseconds. Keep
/// one while it is in use, since opening reads files; it closes when the last reference goes.
public actor Generator: Asking {
  public typealias Options = BundleOptions

  nonisolated let opened: Opened

  /// Opens a bundle in the app, where it stays: files are mapped, not copied. `bundle` nil: this package's own. Throws
  /// where its task has labels.
  ///
  /// Checks the bundle where this device, system and library have not passed its check yet. One that fails throws, or
  /// gives nothing but abstentions, as `options` say.
  public init(bundle: Bundle? = nil, options: Options = Options()) async throws {
    opened = try await Opened.open(bundle, options, labels: false)
  }

  /// Opens a bundle's folder that the app has downloaded, and leaves as it is while it is in use. Throws where a file's
  /// digest is not the manifest's, whatever the options: the app still has the bundle before it.
  public init(folder: URL, options: Options = Options()) async throws {
    opened = try await Opened.open(folder, options, labels: false)
  }

  /// What `generate` and `stream` are to be given; empty where the check failed.
  public nonisolated var fields: [String] { opened.engine?.fields ?? [] }
  /// What is wrong with the bundle on this device; nil where all is well.
  public nonisolated var failedCheck: String? { opened.failedCheck }
  /// Why the first answer takes longer than it could: the bundle's prefix.slm is not for this device.
  public nonisolated var refusedPrefix: String? { opened.engine?.refusedPrefix }

  /// For a task of one field.
  public func generate(_ text: String, sampling: Sampling = Sampling()) async throws -> Generation {
    guard let engine = opened.engine else { return .notAsked }
    return try await generation(write(engine, engine.inOrder(text), sampling))
  }

  /// Throws where the fields are not those that `fields` names, where `sampling` has a value that is not possible, and
  /// where the model can't answer, such as a text that is longer than its context.
  public func generate(_ texts: [String: String], sampling: Sampling = Sampling()) async throws -> Generation {
    guard let engine = opened.engine else { return .notAsked }
    return try await generation(write(engine, engine.inOrder(texts), sampling))
  }

  /// For a task of one field.
  public nonisolated func stream(
    _ text: String, sampling: Sampling = Sampling()
  ) -> AsyncThrowingStream<String, Error> {
    pieces(sampling) { try $0.inOrder(text) }
  }

  /// The answer in pieces, as soon as each is certain. Joined they are the text of `generate`; each holds whole Unicode
  /// scalars, though an emoji can be of several, and two pieces.
  ///
  /// Throws what `generate` throws, and what is wrong with the bundle where it failed its check. To leave the loop, or
  /// to cancel its task, stops the model; a loop whose task is cancelled ends as if the answer did.
  public nonisolated func stream(
    _ texts: [String: String], sampling: Sampling = Sampling()
  ) -> AsyncThrowingStream<String, Error> {
    pieces(sampling) { try $0.inOrder(texts) }
  }

  private nonisolated func pieces(
    _ sampling: Sampling, _ texts: @escaping @Sendable (Engine) throws -> [String]
  ) -> AsyncThrowingStream<String, Error> {
    AsyncThrowingStream { continuation in
      let writing = Task {
        do {
          let engine = try self.opened.neededEngine()
          _ = try await self.write(engine, texts(engine), sampling) { continuation.yield($0) }
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
      continuation.onTermination = { _ in writing.cancel() }
    }
  }

  /// All that the model told; texts are in the engine's order.
  func write(
    _ engine: Engine, _ texts: [String], _ sampling: Sampling, _ give: @Sendable (String) -> Void = { _ in }
  ) async throws -> Written {
    try await ask(engine) { try $0.write(texts, sampling, give) }
  }

  private func generation(_ written: Written) -> Generation {
    Generation(text: written.text, done: written.done, tokens: written.ids.count, timings: written.timings)
  }
}

extension Generation {
  fileprivate static let notAsked = Generation(text: nil, done: nil, tokens: 0, timings: Timings())
}
