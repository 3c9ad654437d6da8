import Foundation

/// What of model.json is needed here.
struct PackagedDecoder: Decodable {
  let delegate: String
  let context: Int
  /// Tokens of one call of `prefill`.
  let chunk: Int

  enum CodingKeys: String, CodingKey {
    case delegate, context, chunk
  }
}

/// A line of golden.jsonl.
struct GoldenItem: Decodable {
  let fields: [String: String]
  let expected: String
  let reference: ReferenceAnswer?

  enum CodingKeys: String, CodingKey {
    case fields, expected, reference
  }

  /// What the model said before it was quantized, or else what the data say.
  var wanted: String { reference?.answer ?? expected }

  func texts(_ names: [String]) -> [String] {
    names.map { fields[$0] ?? "" }
  }

  static func read(_ url: URL) throws -> [GoldenItem] {
    let lines = try Data(contentsOf: url).split(separator: UInt8(ascii: "\n"))
    return try lines.map { try JSONDecoder().decode(GoldenItem.self, from: $0) }
  }
}

struct ReferenceAnswer: Decodable {
  let answer: String

  enum CodingKeys: String, CodingKey {
    case answer
  }
}
