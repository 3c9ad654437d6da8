"""The morning report: what a night on the devices says, for whoever reads it over coffee and for CI."""
