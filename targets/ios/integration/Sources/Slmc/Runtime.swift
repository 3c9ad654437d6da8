/// What a result says of what ran, see slmc's runner contract.
struct Runtime: Sendable {
  let name: String
  let version: String
  let precision: String
  let activations: String?
  let threads: Int?
}
