import Foundation
import UIKit

extension Phone {
  /// Such as "iPhone17,1" and "iOS 18.1 (Build 22B83)".
  @MainActor static var this: Phone {
    let process = ProcessInfo.processInfo
    let version = process.operatingSystemVersionString.replacingOccurrences(of: "Version ", with: "")
    return Phone(
      model: machine(),
      system: "\(UIDevice.current.systemName) \(version)",
      cores: process.processorCount,
      memory: process.physicalMemory,
      booted: booted())
  }

  private static func machine() -> String {
    var bytes = [UInt8](repeating: 0, count: 64)
    var size = bytes.count
    guard sysctlbyname("hw.machine", &bytes, &size, nil, 0) == 0 else { return "unknown" }
    return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
  }

  private static func booted() -> Int {
    var time = timeval()
    var size = MemoryLayout<timeval>.size
    return sysctlbyname("kern.boottime", &time, &size, nil, 0) == 0 ? time.tv_sec : 0
  }
}

extension Moment {
  @MainActor static func now(_ folder: URL) -> Moment {
    let key = URLResourceKey.volumeAvailableCapacityForImportantUsageKey
    let free = try? folder.resourceValues(forKeys: [key]).volumeAvailableCapacityForImportantUsage
    let process = ProcessInfo.processInfo
    let device = UIDevice.current
    let known = device.batteryState != .unknown
    return Moment(
      free: free ?? 0,
      thermal: thermal(process.thermalState),
      lowPower: process.isLowPowerModeEnabled,
      battery: known ? device.batteryLevel : nil,
      charging: known ? device.batteryState != .unplugged : nil)
  }

  private static func thermal(_ state: ProcessInfo.ThermalState) -> String {
    switch state {
    case .nominal: return "nominal"
    case .fair: return "fair"
    case .serious: return "serious"
    case .critical: return "critical"
    @unknown default: return "unknown"
    }
  }
}
