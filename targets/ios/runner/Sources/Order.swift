/// What the Mac asks, and what it is told: toolchain/slmc/devices/runner_app.py.

struct Order: Decodable {
  let version: Int
  let token: String
  /// Digests by names: these files and no others are to lie in the job's folder. Without any, files stay as they are.
  let files: [String: String]?
  /// The command line of slm-run; without one nothing is run.
  let command: [String]?

  enum CodingKeys: String, CodingKey {
    case token, files, command
    case version = "slmc_order"
  }
}

struct Told: Encodable {
  let version = 1
  let token: String
  /// The digest of the library that this app is made of.
  let runner: String
  let phone: Phone
  let moment: Moment
  /// Digests of files that are to be sent.
  var missing: [String] = []
  /// Of the command that was run.
  var code: Int32?
  /// Digests of what the command wrote, by name.
  var made: [String: String] = [:]
  /// A person or a lock took the app off the screen.
  var left = false
  /// What went wrong otherwise.
  var problem: String?

  enum CodingKeys: String, CodingKey {
    case token, runner, phone, moment, missing, code, made, left, problem
    case version = "slmc_told"
  }
}

struct Phone: Encodable {
  let model: String
  let system: String
  let cores: Int
  let memory: UInt64
  /// Seconds since 1970.
  let booted: Int

  enum CodingKeys: String, CodingKey {
    case model, system, cores, booted
    case memory = "memory_bytes"
  }
}

struct Moment: Encodable {
  let free: Int64
  let thermal: String
  let lowPower: Bool
  /// From 0 to 1.
  let battery: Float?
  let charging: Bool?

  enum CodingKeys: String, CodingKey {
    case thermal, battery, charging
    case free = "free_bytes"
    case lowPower = "low_power"
  }
}
