import Foundation
import XCTest

@testable import Slmc

/// A runner by slmc's contract: a workload in, a result out, from texts and not from the workload's token ids.
///
/// The workload is the file that SLMC_WORKLOAD names, or a resource workload.jsonl of the tests; the result goes to
/// SLMC_RESULT, or to the temporary folder, and is attached to the test in any case.
final class WorkloadTests: XCTestCase {
  func testTheBundlePassesItsCheck() async throws {
    let classifier = try await Classifier()
    XCTAssertNil(classifier.failedCheck)
  }

  func testAnswersAWorkload() async throws {
    guard let file = workloadFile() else { throw XCTSkip("no workload") }
    let lines = try Data(contentsOf: file).split(separator: UInt8(ascii: "\n"))
    let header = try JSONDecoder().decode(WorkloadHeader.self, from: try XCTUnwrap(lines.first))
    let items = try lines.dropFirst().map { try JSONDecoder().decode(ChooseItem.self, from: $0) }

    var options = Classifier.Options()
    options.onFailedCheck = .throw
    let clock = ContinuousClock()
    let begun = clock.now
    let classifier = try await Classifier(options: options)
    let load = clock.now - begun

    let writer = try ResultWriter(resultFile())
    try writer.line(ResultHeader(workload: header.digest, environment: environment(of: classifier)))
    for item in items {
      try writer.line(try await answer(item, header, classifier))
    }
    try writer.finish(Footer(peakMemoryBytes: peakMemory(), loadMilliseconds: load / Duration.milliseconds(1)))
    let attachment = XCTAttachment(contentsOfFile: writer.file)
    attachment.lifetime = .keepAlways
    add(attachment)
  }

  private func answer(_ item: ChooseItem, _ header: WorkloadHeader, _ classifier: Classifier) async throws -> Chosen {
    let choices = try XCTUnwrap(item.choices.flatMap { header.choices[$0] }, "\(item.id) has mode \(item.mode)")
    let answer = try await classifier.answer(try XCTUnwrap(item.fields, "\(item.id) has no fields"))
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

  private func environment(of classifier: Classifier) throws -> Environment {
    let runtime = try XCTUnwrap(classifier.opened.engine).runtime
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
      artifact: classifier.opened.manifest.digest(below: "model/"),
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
