import CryptoKit
import Foundation

/// The app's own folder, which the Mac writes to and reads from as well.
///
///     order.json     what is asked
///     begun          the token of the order that was begun
///     told.json      what came of it
///     output         what the command wrote
///     signal         the number of the signal that ended the app, one byte
///     files/SHA256   what was brought
///     job/NAME       links to it, and what the command writes
///
/// The app makes the folders: in one that the Mac made it could remove nothing.
struct Container: Sendable {
  let folder = URL.documentsDirectory
  var job: URL { folder.appendingPathComponent("job") }
  private var files: URL { folder.appendingPathComponent("files") }

  /// slmc writes it beside the library, into the app's project.
  var runner: String {
    let file = Bundle.main.url(forResource: "slm-run", withExtension: "sha256")
    let text = file.flatMap { try? String(contentsOf: $0, encoding: .utf8) } ?? ""
    return text.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  func order() throws -> Order {
    let order = try JSONDecoder().decode(Order.self, from: Data(contentsOf: path("order.json")))
    guard order.version == 1 else { throw Problem("an order of version \(order.version), where this app knows 1") }
    return order
  }

  /// Whether it was not begun before. However often the app is launched for an order, it is done once.
  func begins(_ order: Order) throws -> Bool {
    let begun = path("begun")
    guard (try? String(contentsOf: begun, encoding: .utf8)) != order.token else { return false }
    for old in ["told.json", "output", "signal"] { try? FileManager.default.removeItem(at: path(old)) }
    try order.token.write(to: begun, atomically: true, encoding: .utf8)
    return true
  }

  func tell(_ told: Told) throws {
    try JSONEncoder().encode(told).write(to: path("told.json"), options: .atomic)
  }

  /// Both outputs go to a file from now on.
  func openOutput() throws {
    let file = try opened("output")
    dup2(file, STDOUT_FILENO)
    dup2(file, STDERR_FILENO)
  }

  func openSignal() throws -> Int32 { try opened("signal") }

  /// Lays out the wanted files where all are there, and removes others and what is damaged. Gives the digests of those
  /// that are missing.
  func stock(_ wanted: [String: String]) throws -> [String] {
    let manager = FileManager.default
    try? manager.removeItem(at: job)
    try manager.createDirectory(at: job, withIntermediateDirectories: true)
    try manager.createDirectory(at: files, withIntermediateDirectories: true)
    var left = Set(wanted.values)
    for name in try manager.contentsOfDirectory(atPath: files.path) {
      let file = files.appendingPathComponent(name)
      if left.contains(name), try digest(file) == name {
        left.remove(name)
      } else {
        try manager.removeItem(at: file)
      }
    }
    if left.isEmpty {
      for (name, digest) in wanted { try link(name, digest) }
    }
    return left.sorted()
  }

  /// Digests of the files in the job's folder that are no links.
  func made() throws -> [String: String] {
    let keys: Set<URLResourceKey> = [.isRegularFileKey]
    let manager = FileManager.default
    guard let found = manager.enumerator(atPath: job.path) else { throw Problem("no folder job") }
    var made: [String: String] = [:]
    for case let name as String in found {
      let file = job.appendingPathComponent(name)
      if try file.resourceValues(forKeys: keys).isRegularFile == true { made[name] = try digest(file) }
    }
    return made
  }

  private func link(_ name: String, _ digest: String) throws {
    guard !name.hasPrefix("/"), !name.split(separator: "/", omittingEmptySubsequences: false).contains("..") else {
      throw Problem("\(name) leaves the folder")
    }
    let place = job.appendingPathComponent(name)
    try FileManager.default.createDirectory(at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
    try FileManager.default.createSymbolicLink(at: place, withDestinationURL: files.appendingPathComponent(digest))
  }

  /// Read piece by piece: mapped, a file would count as memory that slm-run held.
  private func digest(_ file: URL) throws -> String {
    let handle = try FileHandle(forReadingFrom: file)
    defer { try? handle.close() }
    var hash = SHA256()
    while try autoreleasepool(invoking: { () -> Bool in
      guard let piece = try handle.read(upToCount: 1 << 20), !piece.isEmpty else { return false }
      hash.update(data: piece)
      return true
    }) {}
    return hash.finalize().map { String(format: "%02x", $0) }.joined()
  }

  private func opened(_ name: String) throws -> Int32 {
    let file = open(path(name).path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
    guard file >= 0 else { throw Problem("\(name) can't be written: \(String(cString: strerror(errno)))") }
    return file
  }

  private func path(_ name: String) -> URL { folder.appendingPathComponent(name) }
}
