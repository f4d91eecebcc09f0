"""The command line: parses options, calls the toolkit and prints."""
