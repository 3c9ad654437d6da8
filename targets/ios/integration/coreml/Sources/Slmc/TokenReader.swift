import CoreML
import Foundation

/// The model's functions `prefill` and `decode` over one state, which holds keys and values of the tokens read last.
final class TokenReader {
  let units: String
  /// What was read so far, and in how many calls of the model.
  private(set) var count = (tokens: 0, calls: 0)
  private let packaged: PackagedDecoder
  private let prefill: MLModel
  private let decode: MLModel
  private let state: MLState
  private var held: [Int32] = []

  init(_ compiled: URL, _ packaged: PackagedDecoder) throws {
    self.packaged = packaged
    units = packaged.delegate == "ane" ? "cpuAndNeuralEngine" : "cpuAndGPU"
    prefill = try TokenReader.load("prefill", compiled, packaged)
    decode = try TokenReader.load("decode", compiled, packaged)
    state = prefill.makeState()
  }

  private static func load(_ function: String, _ compiled: URL, _ packaged: PackagedDecoder) throws -> MLModel {
    let configuration = MLModelConfiguration()
    configuration.computeUnits = packaged.delegate == "ane" ? .cpuAndNeuralEngine : .cpuAndGPU
    configuration.functionName = function
    return try MLModel(contentsOf: compiled, configuration: configuration)
  }

  /// The next token's logits after some. Reads those that are not held yet: what prompts begin with alike is read once.
  func logits(after ids: [Int32]) throws -> [Float] {
    guard !ids.isEmpty, ids.count <= packaged.context else {
      throw SlmcError("\(ids.count) tokens for a model of 1 to \(packaged.context)")
    }
    // The last is read in any case: what comes after it is asked for.
    let same = min(zip(held, ids).prefix { $0 == $1 }.count, ids.count - 1)
    held.removeSubrange(same...)
    var logits: [Float] = []
    while held.count < ids.count {
      try Task.checkCancellation()
      let next = Array(ids[held.count..<held.count + step(ids.count - held.count)])
      logits = try read(next)
      held += next
      count.tokens += next.count
      count.calls += 1
    }
    return logits
  }

  /// How many of so many tokens one call reads: a chunk, full or not, where it fits the context, else one.
  private func step(_ left: Int) -> Int {
    left > 1 && held.count + packaged.chunk <= packaged.context ? min(left, packaged.chunk) : 1
  }

  private func read(_ ids: [Int32]) throws -> [Float] {
    let position = array([Int32(held.count)], [1])
    let inputs: [String: Any]
    if ids.count == 1 {
      inputs = ["tokens": array(ids, [1, 1]), "position": position]
    } else {
      let padded = ids + Array(repeating: 0, count: packaged.chunk - ids.count)
      let last = array([Int32(ids.count - 1)], [1])
      inputs = ["tokens": array(padded, [1, packaged.chunk]), "position": position, "last": last]
    }
    let features = try MLDictionaryFeatureProvider(dictionary: inputs)
    let found = try (ids.count == 1 ? decode : prefill).prediction(from: features, using: state)
    guard let logits = found.featureValue(for: "logits")?.multiArrayValue else {
      throw SlmcError("the model gave no logits")
    }
    return MLShapedArray<Float>(converting: logits).scalars
  }

  private func array(_ values: [Int32], _ shape: [Int]) -> MLFeatureValue {
    MLFeatureValue(shapedArray: MLShapedArray<Int32>(scalars: values, shape: shape))
  }
}
