/// How a bundle is opened.
public struct BundleOptions: Sendable {
  /// Of the CPU; more than there are fast cores is slower. Core ML takes its own.
  public var threads = Device.fastCores
  /// Compare every file that is used with its SHA-256, which reads all of the weights. Sizes are compared always.
  public var verifiesDigests = false
  /// A `Classifier` abstains below this probability; nil: as the bundle's manifest says.
  public var abstainBelow: Double?
  public var onFailedCheck = OnFailedCheck.abstain

  public init() {}

  /// What becomes of a bundle that is damaged, or answers otherwise on this device than where it was built.
  public enum OnFailedCheck: Sendable {
    /// Opening it throws.
    case `throw`
    /// Every answer abstains, and `failedCheck` tells why.
    case abstain
  }
}
