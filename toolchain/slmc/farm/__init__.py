"""Night after night on real devices: what was measured, what changed, and who is told."""
