import CryptoKit
import Foundation

/// What of manifest.json is needed here.
struct Manifest: Decodable, Sendable {
  let schemaVersion: Int
  let name: String
  let version: String
  let labels: [String]
  let files: [String: FileEntry]
  let confidence: Confidence?

  enum CodingKeys: String, CodingKey {
    case schemaVersion = "schema_version"
    case name, version, labels, files, confidence
  }

  /// 0 where the bundle has none; infinite where it is never to be trusted.
  var threshold: Double {
    guard let abstain = confidence?.abstain else { return 0 }
    return abstain.threshold ?? .infinity
  }

  /// As slmc names a folder: SHA-256 of its files' digests by name, in JSON. `folder` is empty or ends with a slash.
  func digest(below folder: String = "") -> String {
    let inside = files.filter { $0.key.hasPrefix(folder) }.sorted { $0.key < $1.key }
    let rows = inside.map { "\"\($0.key.dropFirst(folder.count))\":\"\($0.value.sha256)\"" }
    return hex(SHA256.hash(data: Data("{\(rows.joined(separator: ","))}".utf8)))
  }
}

struct FileEntry: Decodable, Sendable {
  let bytes: Int
  let sha256: String

  enum CodingKeys: String, CodingKey {
    case bytes, sha256
  }
}

struct Confidence: Decodable, Sendable {
  let abstain: Abstain?

  enum CodingKeys: String, CodingKey {
    case abstain
  }
}

struct Abstain: Decodable, Sendable {
  let threshold: Double?

  enum CodingKeys: String, CodingKey {
    case threshold
  }
}

func hex(_ digest: SHA256Digest) -> String {
  digest.map { String(format: "%02x", $0) }.joined()
}
