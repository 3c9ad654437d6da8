import Foundation

/// In English, for a log.
public struct SlmcError: LocalizedError, CustomStringConvertible, Sendable {
  public let description: String
  public var errorDescription: String? { description }

  init(_ description: String) {
    self.description = description
  }
}
