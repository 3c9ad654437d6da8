"""What a mobile team takes: manifest, prompt contract, golden file, integrity."""
