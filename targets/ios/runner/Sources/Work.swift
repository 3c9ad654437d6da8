import Foundation
import slm_run

/// Does what order.json asks, tells it in told.json, and ends the app.
///
/// Not checked by the compiler: what two threads use is behind the lock.
final class Work: @unchecked Sendable {
  static let shared = Work()

  private let container = Container()
  private let lock = NSLock()
  private var begun = false
  private var token: String?

  /// On a thread of its own, once.
  func begin() {
    guard !begun else { return }
    begun = true
    let thread = Thread { self.run() }
    thread.stackSize = 8 << 20  // a main thread's
    thread.start()
  }

  /// The app goes off the screen, where it would be held up and, sooner or later, ended.
  func leave() {
    lock.lock()
    guard let token else { exit(0) }
    var told = self.told(token)
    told.left = true
    end(told)
  }

  /// An order that can't be read, or that was begun before by an app that died of it, is left alone.
  private func run() {
    guard let order = try? container.order(), (try? container.begins(order)) == true else { exit(0) }
    lock.lock()
    token = order.token
    lock.unlock()
    var told = onMain { self.told(order.token) }
    do {
      if let files = order.files { told.missing = try container.stock(files) }
      if let command = order.command, told.missing.isEmpty {
        told.code = try execute(command)
        told.made = try container.made()
      }
    } catch {
      told.problem = "\(error)"
    }
    lock.lock()
    end(told)
  }

  /// The lock is held, and stays so: nobody else tells anything.
  private func end(_ told: Told) -> Never {
    try? container.tell(told)
    exit(0)
  }

  private func execute(_ command: [String]) throws -> Int32 {
    try container.openOutput()
    slm_note_signals(try container.openSignal())
    guard FileManager.default.changeCurrentDirectoryPath(container.job.path) else { throw Problem("no folder job") }
    var words = command.map { strdup($0) } + [nil]
    return words.withUnsafeMutableBufferPointer { slm_run(Int32(command.count), $0.baseAddress) }
  }

  /// On the main thread.
  private func told(_ token: String) -> Told {
    MainActor.assumeIsolated {
      Told(token: token, runner: container.runner, phone: .this, moment: .now(container.folder))
    }
  }

  private func onMain(_ make: @Sendable () -> Told) -> Told {
    DispatchQueue.main.sync(execute: make)
  }
}

struct Problem: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) {
    self.description = description
  }
}
