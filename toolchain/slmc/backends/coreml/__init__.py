"""Core ML: a stateful ML program for iOS 18 and macOS 15, written operation by operation, on any machine."""
