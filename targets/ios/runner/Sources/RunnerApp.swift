import SwiftUI
import UIKit

/// An empty window around slm-run: iOS runs nothing outside of apps. It does one order and ends.
@main
struct RunnerApp: App {
  @Environment(\.scenePhase) private var phase

  var body: some Scene {
    WindowGroup {
      Text("slmc").onAppear {
        UIApplication.shared.isIdleTimerDisabled = true  // a locked phone would hold the app up
        UIDevice.current.isBatteryMonitoringEnabled = true
        Work.shared.begin()
      }
    }
    .onChange(of: phase) { _, now in
      if now == .background { Work.shared.leave() }
    }
  }
}
