import Foundation

/// A bundle that was looked through, with its engine if it is well.
struct Opened: Sendable {
  let manifest: Manifest
  let engine: Engine?
  let failedCheck: String?
  let threshold: Double

  /// One in the app; nil: this package's own. `labels`: whether its task must have some, or none.
  static func open(_ bundle: Bundle?, _ options: BundleOptions, labels: Bool) async throws -> Opened {
    let files = BundleFiles(bundle)
    return try await open(files, files.manifest(labels: labels), options)
  }

  /// One that was downloaded, whose files have the manifest's digests, whatever the options.
  static func open(_ folder: URL, _ options: BundleOptions, labels: Bool) async throws -> Opened {
    let files = BundleFiles(folder: folder)
    let manifest = try files.manifest(labels: labels)
    try files.check(manifest, Engine.needed, digests: true)
    return try await open(files, manifest, options)
  }

  private static func open(
    _ files: BundleFiles, _ manifest: Manifest, _ options: BundleOptions
  ) async throws -> Opened {
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
    _ files: BundleFiles, _ manifest: Manifest, _ options: BundleOptions
  ) async throws -> Engine {
    try files.check(manifest, Engine.needed, digests: options.verifiesDigests)
    let engine = try await Engine(files, manifest, threads: options.threads)
    guard engine.labels == manifest.labels else {
      throw SlmcError("task.slm has other labels than the manifest: they are of two bundles")
    }
    try CheckRecord(bundle: manifest.digest()).run(engine.check)
    return engine
  }

  /// Throws what is wrong with the bundle where there is none.
  func neededEngine() throws -> Engine {
    guard let engine else { throw SlmcError(failedCheck ?? "") }
    return engine
  }
}
