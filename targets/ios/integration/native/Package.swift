// swift-tools-version: 5.9
import PackageDescription

// SwiftPM takes resources only from below a target's folder, so the target's folder is the bundle's.
let package = Package(
  name: "Slmc",
  platforms: [.iOS("18.0"), .macOS("13.0")],
  products: [.library(name: "Slmc", targets: ["Slmc"])],
  targets: [
    .binaryTarget(name: "slm", path: "model/slm.xcframework"),
    .target(
      name: "Slmc",
      dependencies: ["slm"],
      path: ".",
      exclude: ["README.md", "Tests", "golden.jsonl", "model/slm.xcframework"],
      sources: ["Sources/Slmc"],
      resources: [
        .copy("manifest.json"), .copy("task.slm"),
        .copy("prefix.slm"),
        .copy("model/model.json"), .copy("model/model.slm"),
      ]
    ),
    .testTarget(name: "SlmcTests", dependencies: ["Slmc"], path: "Tests/SlmcTests"),
  ]
)
