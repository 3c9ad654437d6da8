/// What `Classifier` and `Generator` have in common: they ask an engine, one call at a time.
protocol Asking: Actor {}

extension Asking {
  /// Cancelling the task stops the model.
  func ask<Found: Sendable>(_ engine: Engine, _ call: (Engine) throws -> Found) async throws -> Found {
    try Task.checkCancellation()
    return try await withTaskCancellationHandler {
      // By way of a method of the actor, whose turn lasts until it returns: an engine has no room for two. It is held
      // from an answer's first token to its last, since nothing is awaited between them.
      try turn(engine, call)
    } onCancel: {
      engine.cancel()
    }
  }

  private func turn<Found>(_ engine: Engine, _ call: (Engine) throws -> Found) throws -> Found {
    try call(engine)
  }
}

extension Engine {
  /// For a task of one field.
  func inOrder(_ text: String) throws -> [String] {
    guard fields.count == 1 else { throw SlmcError("the task has the fields \(fields): give each of them") }
    return [text]
  }

  /// Throws where the texts' names are not those of `fields`.
  func inOrder(_ texts: [String: String]) throws -> [String] {
    let found = fields.compactMap { texts[$0] }
    guard found.count == fields.count, found.count == texts.count else {
      throw SlmcError("the fields are \(texts.keys.sorted()), not \(fields)")
    }
    return found
  }
}
