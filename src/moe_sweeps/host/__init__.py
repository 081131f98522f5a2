"""What a machine gives: files, locks, terminals, signals, memory, devices."""
