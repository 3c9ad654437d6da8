/// A bundle that was looked through, with its engine if it is well.
struct Opened: Sendable {
  let manifest: Manifest
  let engine: Engine?
  let failedCheck: String?
  let threshold: Double

  static func open(_ files: BundleFiles, _ manifest: Manifest, _ options: Classifier.Options) async throws -> Opened {
    let threshold = options.abstainBelow ?? manifest.threshold
    do {
      let engine = try await checkedEngine(files, manifest, options)
      return Opened(manifest: manifest, engine: engine, failedCheck: nil, threshold: threshold)
    } catch {
      guard options.onFailedCheck == .abstain, !(error is CancellationError) else { throw error }
      return Opened(manifest: manifest, engine: nil, failedCheck: "\(error)", threshold: threshold)
    }
  }

  private static func checkedEngine(
    _ files: BundleFiles, _ manifest: Manifest, _ options: Classifier.Options
  ) async throws -> Engine {
    try files.check(manifest, Engine.needed, digests: options.verifiesDigests)
    let engine = try await Engine(files, manifest, threads: options.threads)
    guard engine.labels == manifest.labels else {
      throw ClassifierError("task.slm has other labels than the manifest: they are of two bundles")
    }
    try CheckRecord(bundle: manifest.digest()).run(engine.check)
    return engine
  }
}
