import CryptoKit
import Foundation

/// A bundle's files, laid out as slmc made them, or flat, as SwiftPM copies resources.
struct BundleFiles: Sendable {
  let folder: URL

  func url(_ name: String) -> URL {
    let url = folder.appendingPathComponent(name)
    guard name.hasPrefix("model/"), !FileManager.default.fileExists(atPath: url.path) else { return url }
    return folder.appendingPathComponent(String(name.dropFirst("model/".count)))
  }

  func manifest() throws -> Manifest {
    let manifest = try JSONDecoder().decode(Manifest.self, from: Data(contentsOf: url("manifest.json")))
    guard manifest.schemaVersion == 1 else {
      throw SlmcError("a manifest of version \(manifest.schemaVersion), where this code knows 1")
    }
    return manifest
  }

  /// Throws where the task has labels though it must have none, or the other way round.
  func manifest(labels: Bool) throws -> Manifest {
    let found = try manifest()
    guard found.labels.isEmpty != labels else {
      throw SlmcError(
        labels
          ? "\(found.name) has no labels, it answers in text: open it with Generator, not Classifier"
          : "\(found.name) has labels: open it with Classifier, not Generator")
    }
    return found
  }

  /// Compares files, or all that folders hold, with the manifest.
  func check(_ manifest: Manifest, _ names: [String], digests: Bool) throws {
    for name in names {
      let found = manifest.files.filter { $0.key == name || $0.key.hasPrefix(name + "/") }
      guard !found.isEmpty else { throw SlmcError("the manifest has no \(name)") }
      for (name, entry) in found {
        try check(name, entry, digest: digests)
      }
    }
  }

  private func check(_ name: String, _ entry: FileEntry, digest: Bool) throws {
    guard !name.split(separator: "/", omittingEmptySubsequences: false).contains("..") else {
      throw SlmcError("\(name) leaves the bundle")
    }
    let url = self.url(name)
    guard let size = try? url.resourceValues(forKeys: [.fileSizeKey]).fileSize, size == entry.bytes else {
      throw SlmcError("\(name) is missing or has not the \(entry.bytes) bytes of the manifest")
    }
    guard digest else { return }
    // Mapped, so that weights need no memory of the app's own.
    let data = try Data(contentsOf: url, options: .alwaysMapped)
    guard hex(SHA256.hash(data: data)) == entry.sha256 else {
      throw SlmcError("\(name) was changed: its digest is not the manifest's")
    }
  }
}

extension BundleFiles {
  /// Those of a bundle in the app; nil: this package's own.
  init(_ bundle: Bundle?) {
    let found = bundle ?? Bundle.module
    self.init(folder: found.resourceURL ?? found.bundleURL)
  }
}
