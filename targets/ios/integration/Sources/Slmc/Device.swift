import Foundation

/// What this runs on.
enum Device {
  /// Such as "iPhone17,1" or "Mac14,2".
  static var model: String {
    #if targetEnvironment(simulator)
      return "simulator"
    #elseif os(macOS)
      return text("hw.model")
    #else
      return text("hw.machine")
    #endif
  }

  /// With the build, which every update changes.
  static var system: String { ProcessInfo.processInfo.operatingSystemVersionString }

  /// At most 4: what one small model can use.
  static var fastCores: Int {
    var count: Int32 = 0
    var size = MemoryLayout<Int32>.size
    let status = sysctlbyname("hw.perflevel0.physicalcpu", &count, &size, nil, 0)
    return status == 0 ? min(max(Int(count), 1), 4) : 2
  }

  private static func text(_ name: String) -> String {
    var bytes = [UInt8](repeating: 0, count: 64)
    var size = bytes.count
    guard sysctlbyname(name, &bytes, &size, nil, 0) == 0 else { return "unknown" }
    return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
  }
}
