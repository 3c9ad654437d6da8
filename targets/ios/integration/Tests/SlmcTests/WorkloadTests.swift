import Foundation
import XCTest

@testable import Slmc

/// A runner by slmc's contract: a workload in, a result out, from texts and not from the workload's token ids.
///
/// The workload is the file that SLMC_WORKLOAD names, or a resource workload.jsonl of the tests; the result goes to
/// SLMC_RESULT, or to the temporary folder, and is attached to the test in any case.
final class WorkloadTests: XCTestCase {
  func testTheBundlePassesItsCheck() async throws {
    let asked = try await Asked.open()
    XCTAssertNil(asked.opened.failedCheck)
  }

  func testAnswersAWorkload() async throws {
    guard let file = workloadFile() else { throw XCTSkip("no workload") }
    let lines = try Data(contentsOf: file).split(separator: UInt8(ascii: "\n"))
    let header = try JSONDecoder().decode(WorkloadHeader.self, from: try XCTUnwrap(lines.first))
    let clock = ContinuousClock()
    let begun = clock.now
    let asked = try await Asked.open()
    let load = clock.now - begun

    let writer = try ResultWriter(resultFile())
    try writer.line(ResultHeader(workload: header.digest, environment: environment(of: asked.opened)))
    for line in lines.dropFirst() {
      switch asked {
      case .labels(let classifier):
        let item = try JSONDecoder().decode(ChooseItem.self, from: line)
        try writer.line(try await choose(item, header, classifier))
      case .text(let generator):
        let item = try JSONDecoder().decode(GenerateItem.self, from: line)
        try writer.line(try await generate(item, generator))
      }
    }
    try writer.finish(Footer(peakMemoryBytes: peakMemory(), loadMilliseconds: load / Duration.milliseconds(1)))
    let attachment = XCTAttachment(contentsOfFile: writer.file)
    attachment.lifetime = .keepAlways
    add(attachment)
  }

  private func choose(_ item: ChooseItem, _ header: WorkloadHeader, _ classifier: Classifier) async throws -> Chosen {
    let choices = try XCTUnwrap(item.choices.flatMap { header.choices[$0] }, "\(item.id) has mode \(item.mode)")
    let engine = try classifier.opened.neededEngine()
    let texts = try engine.inOrder(try XCTUnwrap(item.fields, "\(item.id) has no fields"))
    let answer = try await classifier.answer(engine, texts)
    let own = answer.promptIDs
    // The Core ML flavour tells with the prompt what all labels begin with.
    let same = own.starts(with: item.inputIDs)
      && choices.allSatisfy { $0.starts(with: own.dropFirst(item.inputIDs.count)) }
    return Chosen(
      id: item.id,
      prefillMilliseconds: answer.timings.prefill / Duration.milliseconds(1),
      decodeMilliseconds: answer.timings.decode / Duration.milliseconds(1),
      prefillTokens: answer.timings.prefillTokens,
      decodeTokens: answer.timings.decodeTokens,
      decodeSteps: answer.timings.decodeSteps,
      inputIDs: OrNull(value: same ? nil : own),
      choice: answer.choice,
      outputIDs: choices[answer.choice],
      text: classifier.labels[answer.choice],
      logProbabilities: answer.logProbabilities.map { LogProbability(choice: $0.key, value: $0.value) },
      unexplored: Double(answer.unexplored))
  }

  /// Greedily, as an app does it; within the schema where the task has one.
  private func generate(_ item: GenerateItem, _ generator: Generator) async throws -> Generated {
    let tokens = try XCTUnwrap(item.maxTokens, "\(item.id) has mode \(item.mode)")
    guard item.ignoreEnd != true else {
      throw SlmcError("\(item.id) is to be written past its end, to measure speed: an app's answers end")
    }
    let engine = try generator.opened.neededEngine()
    let texts = try engine.inOrder(try XCTUnwrap(item.fields, "\(item.id) has no fields"))
    let written = try await generator.write(engine, texts, Sampling(maxTokens: tokens))
    return Generated(
      id: item.id,
      prefillMilliseconds: written.timings.prefill / Duration.milliseconds(1),
      decodeMilliseconds: written.timings.decode / Duration.milliseconds(1),
      prefillTokens: written.timings.prefillTokens,
      decodeTokens: written.timings.decodeTokens,
      decodeSteps: written.timings.decodeSteps,
      inputIDs: OrNull(value: written.promptIDs == item.inputIDs ? nil : written.promptIDs),
      outputIDs: written.ids,
      ended: written.done == .ended,
      text: written.text,
      logProbabilities: written.logProbabilities)
  }

  private func environment(of opened: Opened) throws -> Environment {
    let runtime = try opened.neededEngine().runtime
    #if targetEnvironment(simulator)
      let simulated = true
    #else
      let simulated = false
    #endif
    return Environment(
      device: Device.model,
      os: Device.system,
      runtime: runtime.name,
      version: runtime.version,
      threads: OrNull(value: runtime.threads),
      thermal: thermalState(),
      artifact: opened.manifest.digest(below: "model/"),
      precision: runtime.precision,
      activations: OrNull(value: runtime.activations),
      simulated: simulated)
  }

  private func thermalState() -> String {
    switch ProcessInfo.processInfo.thermalState {
    case .nominal: return "nominal"
    case .fair: return "fair"
    case .serious: return "serious"
    case .critical: return "critical"
    @unknown default: return "unknown"
    }
  }

  private func peakMemory() -> Int {
    var usage = rusage()
    getrusage(RUSAGE_SELF, &usage)
    return usage.ru_maxrss
  }

  private func workloadFile() -> URL? {
    if let path = ProcessInfo.processInfo.environment["SLMC_WORKLOAD"] { return URL(fileURLWithPath: path) }
    return Bundle(for: WorkloadTests.self).url(forResource: "workload", withExtension: "jsonl")
  }

  private func resultFile() -> URL {
    if let path = ProcessInfo.processInfo.environment["SLMC_RESULT"] { return URL(fileURLWithPath: path) }
    return FileManager.default.temporaryDirectory.appendingPathComponent("result.jsonl")
  }
}

/// The package's own bundle, by what its task answers with.
private enum Asked {
  case labels(Classifier)
  case text(Generator)

  static func open() async throws -> Asked {
    var options = BundleOptions()
    options.onFailedCheck = .throw
    guard try BundleFiles(nil).manifest().labels.isEmpty else {
      return .labels(try await Classifier(options: options))
    }
    return .text(try await Generator(options: options))
  }

  var opened: Opened {
    switch self {
    case .labels(let classifier): return classifier.opened
    case .text(let generator): return generator.opened
    }
  }
}

/// Writes beside the result, and moves it there when its last line is written: a result that is cut off is none.
private struct ResultWriter {
  let file: URL
  private let partial: URL
  private let handle: FileHandle

  init(_ file: URL) throws {
    self.file = file
    partial = URL(fileURLWithPath: file.path + ".partial")
    try Data().write(to: partial)
    handle = try FileHandle(forWritingTo: partial)
  }

  func line(_ value: some Encodable) throws {
    try handle.write(contentsOf: JSONEncoder().encode(value) + Data("\n".utf8))
  }

  func finish(_ footer: Footer) throws {
    try line(footer)
    try handle.close()
    try? FileManager.default.removeItem(at: file)
    try FileManager.default.moveItem(at: partial, to: file)
  }
}
