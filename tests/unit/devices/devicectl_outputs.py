"""What devicectl wrote to `--json-output`, as others recorded it, with what is not read here left out.

flutter/flutter, packages/flutter_tools/test/general.shard/ios/core_devices_test.dart: versions 341 to 477
expo/expo/pull/48001 and dotnet/macios/issues/22109: `list devices` of Xcode 27, jsonVersion 5, and of Xcode 16
qt-creator, tests/auto/ios/devicectlutils: `info processes`
"""

from __future__ import annotations

import json
from typing import Any

_XCODE_16 = """
{
  "info": {
    "arguments": ["devicectl", "list", "devices", "--json-output", "devices.json"],
    "commandType": "devicectl.list.devices", "environment": {"TERM": "xterm-256color"},
    "jsonVersion": 2, "outcome": "success", "version": "397.28"
  },
  "result": {
    "devices": [
      {
        "capabilities": [],
        "connectionProperties": {
          "authenticationType": "manualPairing", "isMobileDeviceOnly": false, "pairingState": "paired",
          "transportType": "wired", "tunnelState": "connected", "tunnelTransportProtocol": "tcp"
        },
        "deviceProperties": {
          "bootState": "booted", "ddiServicesAvailable": true, "developerModeStatus": "enabled",
          "name": "my-iphone", "osBuildUpdate": "22B91", "osVersionNumber": "18.1.1"
        },
        "hardwareProperties": {
          "cpuType": {"name": "arm64e", "subType": 2, "type": 16777228},
          "deviceType": "iPhone", "internalStorageCapacity": 128000000000, "marketingName": "iPhone 13 Pro",
          "platform": "iOS", "productType": "iPhone14,2", "reality": "physical",
          "udid": "00008110-00015D4E1439801E"
        },
        "identifier": "6DEA7AA0-E7CE-4C2F-8706-43464FA2910D", "tags": [], "visibilityClass": "default"
      },
      {
        "connectionProperties": {"pairingState": "paired", "tunnelState": "unavailable"},
        "deviceProperties": {"name": "iPhone 15", "osBuildUpdate": "23B85", "osVersionNumber": "26.1"},
        "hardwareProperties": {"platform": "iOS", "reality": "physical", "udid": "00008002-012301230123ABCD"},
        "identifier": "33333333-AAAA-BBBB-CCCC-DDDDDDDDDDDD"
      },
      {
        "connectionProperties": {"pairingState": "unpaired", "transportType": "wired", "tunnelState": "disconnected"},
        "deviceProperties": {"name": "iPhone 12"},
        "hardwareProperties": {"platform": "iOS", "productType": "iPhone13,2", "udid": "00000000-0000000000000000"},
        "identifier": "00000000-0000-4000-8000-000000000001"
      },
      {
        "connectionProperties": {"pairingState": "paired", "tunnelState": "disconnected"},
        "deviceProperties": {"developerModeStatus": "disabled", "name": "iPad", "osVersionNumber": "17.6.1"},
        "hardwareProperties": {"deviceType": "iPad", "platform": "iOS", "udid": "00008001-012301230123ABCD"},
        "identifier": "11111111-AAAA-BBBB-CCCC-DDDDDDDDDDDD"
      },
      {
        "connectionProperties": {"pairingState": "paired", "tunnelState": "disconnected"},
        "deviceProperties": {"name": "Watch"},
        "hardwareProperties": {"platform": "watchOS", "udid": "00008301-012301230123ABCD"},
        "identifier": "22222222-AAAA-BBBB-CCCC-DDDDDDDDDDDD"
      },
      {"connectionProperties": {}, "deviceProperties": {}, "hardwareProperties": {}, "identifier": "iOS 16 by cable"}
    ]
  }
}
"""
_XCODE_27 = """
{
  "info": {"commandType": "devicectl.list.devices", "jsonVersion": 5, "outcome": "success", "version": "642.0.1"},
  "result": {
    "devices": [
      {
        "identifier": "8648BE6E-199F-55FE-B508-5B42071FEE92",
        "properties": {
          "connection": {
            "authenticationType": "manualPairing", "pairingState": "paired", "state": "disconnected",
            "transportType": "localNetwork", "tunnelTransportProtocol": "tcp"
          },
          "hardware": {
            "deviceType": "iPhone", "platform": "iOS", "productType": "iPhone14,5",
            "udid": "00008110-000559182E90401E"
          },
          "software": {"osVersionNumber": {"components": [27, 0, 0, 0, 0], "stringValue": "27.0"}},
          "state": {"bootState": "booted", "developerModeStatus": {"enabled": {"mode": 1}}, "name": "iPhone 13"}
        }
      },
      {
        "identifier": "8648BE6E-199F-55FE-B508-5B42071FEE93",
        "properties": {
          "connection": {"pairingState": "paired", "state": "connected", "transportType": "wired"},
          "hardware": {"deviceType": "iPhone", "platform": "iOS", "udid": "00008110-000559182E90401F"},
          "state": {"bootState": "booted", "developerModeStatus": {"disabled": {}}, "name": "iPhone 14"}
        }
      },
      {
        "connectionProperties": {"pairingState": "paired", "transportType": "sameMachine", "tunnelState": "connected"},
        "hardwareProperties": {
          "marketingName": "iPhone 17", "platform": "iOS", "reality": "simulated",
          "udid": "F13C004A-0824-4870-B4F2-29AAEE36636E"
        },
        "identifier": "F13C004A-0824-4870-B4F2-29AAEE36636E",
        "properties": {
          "connection": {"pairingState": "paired", "state": "connected", "transportType": "sameMachine"},
          "hardware": {
            "marketingName": "iPhone 17", "platform": "iOS", "reality": "simulated",
            "udid": "F13C004A-0824-4870-B4F2-29AAEE36636E"
          }
        },
        "visibilityClass": "simulators"
      }
    ]
  }
}
"""
_PROCESSES = """
{
  "info": {"commandType": "devicectl.device.info.processes", "jsonVersion": 2, "outcome": "success"},
  "result": {
    "deviceIdentifier": "00000000-0000-0000-0000-000000000000",
    "runningProcesses": [
      {"executable": "file:///sbin/launchd", "processIdentifier": 1},
      {
        "executable": "file:///private/var/containers/Bundle/Application/0000/SlmcRunner.app/SlmcRunner",
        "processIdentifier": 1000
      },
      {
        "executable": "file:///private/var/containers/Bundle/Application/0000/Other.app/SlmcRunner",
        "processIdentifier": 1001
      },
      {"processIdentifier": 5}
    ]
  }
}
"""
XCODE_16, XCODE_27, PROCESSES = (json.loads(text) for text in (_XCODE_16, _XCODE_27, _PROCESSES))


def failed(code: int, domain: str = "com.apple.dt.CoreDeviceError", **information: Any) -> dict[str, Any]:
    """An output of a command that did not go well."""
    return {
        "error": {"code": code, "domain": domain, "userInfo": information},
        "info": {"jsonVersion": 2, "outcome": "failed", "version": "477.29"},
    }


def text(said: str) -> dict[str, str]:
    return {"string": said}


def under(code: int, domain: str, **information: Any) -> dict[str, Any]:
    return {"error": {"code": code, "domain": domain, "userInfo": information}}


NOT_FOUND = failed(
    1000,
    DeviceName=text("00000000-0000000000000000"),
    NSLocalizedDescription=text("The specified device was not found. (Name: 00000000-0000000000000000)"),
)
NO_FILE = failed(7000, NSLocalizedDescription=text("Failed to retrieve the file node for Documents/nope.txt"))
LOST_COPY = failed(
    7000,
    NSLocalizedDescription=text("Failed to retrieve the file node for Documents/told.json"),
    NSUnderlyingError=under(60, "NSPOSIXErrorDomain"),
)
TUNNEL = failed(
    4,
    NSLocalizedDescription=text("The tunnel connection failed while the system tried to connect to the device."),
    NSUnderlyingError=under(4, "com.apple.dt.RemotePairingError"),
)
LAUNCH_RACE = failed(
    10002,
    NSLocalizedDescription=text("The application failed to launch."),
    NSUnderlyingError=under(22, "NSPOSIXErrorDomain"),
)
LOCKED = failed(
    10002,
    BundleIdentifier=text("org.slmc.SlmcRunner"),
    NSLocalizedDescription=text("The application failed to launch."),
    NSUnderlyingError=under(
        1,
        "FBSOpenApplicationServiceErrorDomain",
        BSErrorCodeDescription=text("RequestDenied"),
        NSLocalizedFailureReason=text(
            "The request was denied by service delegate (SBMainWorkspace) for reason: Locked "
            '("Unable to launch org.slmc.SlmcRunner because the device was not, or could not be, unlocked").'
        ),
        NSUnderlyingError=under(7, "FBSOpenApplicationErrorDomain", BSErrorCodeDescription=text("Locked")),
    ),
)
LOCKED_IMAGE = failed(
    12040,
    NSLocalizedDescription=text("The developer disk image could not be mounted on this device."),
    NSUnderlyingError=under(
        -402652958,
        "com.apple.mobiledevice",
        NSLocalizedFailureReason=text("0xe80000e2 (kAMDMobileImageMounterDeviceLocked: The device is locked.)"),
    ),
)
UNTRUSTED = failed(
    10002,
    NSLocalizedFailureReason=text(
        "Unable to launch org.slmc.SlmcRunner because it has an invalid code signature, inadequate entitlements or its "
        "profile has not been explicitly trusted by the user."
    ),
)
NO_CAPABILITY = failed(
    1001,
    NSLocalizedDescription=text('The capability "Install Application" is not supported by this device.'),
)
NO_PROCESS = failed(3, "NSPOSIXErrorDomain")
