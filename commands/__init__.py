"""One file a command: its options, the call, and what it prints. Everything heavy is imported where it is used."""
