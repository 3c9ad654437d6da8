/// slmc's runner contract, version 1: JSON lines; an unknown key is an error, and a key without a value is null.

struct WorkloadHeader: Decodable {
  let digest: String
  let choices: [String: [[Int32]]]

  enum CodingKeys: String, CodingKey {
    case digest, choices
  }
}

struct ChooseItem: Decodable {
  let id: String
  let mode: String
  let fields: [String: String]?
  let inputIDs: [Int32]
  /// Of a mode other than `choose` there are none.
  let choices: String?

  enum CodingKeys: String, CodingKey {
    case id, mode, fields, choices
    case inputIDs = "input_ids"
  }
}

struct GenerateItem: Decodable {
  let id: String
  let mode: String
  let fields: [String: String]?
  let inputIDs: [Int32]
  /// Of a mode other than `generate` there is none.
  let maxTokens: Int?
  let ignoreEnd: Bool?

  enum CodingKeys: String, CodingKey {
    case id, mode, fields
    case inputIDs = "input_ids"
    case maxTokens = "max_tokens"
    case ignoreEnd = "ignore_end"
  }
}

struct ResultHeader: Encodable {
  let version = 1
  let workload: String
  let environment: Environment

  enum CodingKeys: String, CodingKey {
    case version = "slmc_result"
    case workload, environment
  }
}

struct Environment: Encodable {
  let device: String
  let os: String
  let runtime: String
  let version: String
  let threads: OrNull<Int>
  let thermal: String
  let artifact: String
  let precision: String
  let activations: OrNull<String>
  let simulated: Bool
  let batched = false

  enum CodingKeys: String, CodingKey {
    case device, os, runtime, version, threads, thermal, artifact, precision, activations, simulated, batched
  }
}

struct Chosen: Encodable {
  let id: String
  let prefillMilliseconds: Double
  let decodeMilliseconds: Double
  let prefillTokens: Int
  let decodeTokens: Int
  let decodeSteps: Int
  let inputIDs: OrNull<[Int32]>
  let mode = "choose"
  let choice: Int
  let outputIDs: [Int32]
  let text: String
  let logProbabilities: [LogProbability]
  let unexplored: Double

  enum CodingKeys: String, CodingKey {
    case id, mode, choice, text, unexplored
    case prefillMilliseconds = "prefill_ms"
    case decodeMilliseconds = "decode_ms"
    case prefillTokens = "prefill_tokens"
    case decodeTokens = "decode_tokens"
    case decodeSteps = "decode_steps"
    case inputIDs = "input_ids"
    case outputIDs = "output_ids"
    case logProbabilities = "choice_logprobs"
  }
}

struct Generated: Encodable {
  let id: String
  let prefillMilliseconds: Double
  let decodeMilliseconds: Double
  let prefillTokens: Int
  let decodeTokens: Int
  let decodeSteps: Int
  let inputIDs: OrNull<[Int32]>
  let mode = "generate"
  let outputIDs: [Int32]
  let ended: Bool
  let text: String
  let logProbabilities: [Double]

  enum CodingKeys: String, CodingKey {
    case id, mode, ended, text
    case prefillMilliseconds = "prefill_ms"
    case decodeMilliseconds = "decode_ms"
    case prefillTokens = "prefill_tokens"
    case decodeTokens = "decode_tokens"
    case decodeSteps = "decode_steps"
    case inputIDs = "input_ids"
    case outputIDs = "output_ids"
    case logProbabilities = "logprobs"
  }
}

struct Footer: Encodable {
  let finished = true
  let peakMemoryBytes: Int
  let loadMilliseconds: Double

  enum CodingKeys: String, CodingKey {
    case finished
    case peakMemoryBytes = "peak_memory_bytes"
    case loadMilliseconds = "load_ms"
  }
}

/// A pair in JSON: a choice and its logarithm.
struct LogProbability: Encodable {
  let choice: Int
  let value: Double

  func encode(to encoder: Encoder) throws {
    var pair = encoder.unkeyedContainer()
    try pair.encode(choice)
    try pair.encode(value)
  }
}

/// Swift leaves out a key whose value is nil; the contract wants null.
struct OrNull<Value: Encodable>: Encodable {
  let value: Value?

  func encode(to encoder: Encoder) throws {
    var single = encoder.singleValueContainer()
    try single.encode(value)
  }
}
