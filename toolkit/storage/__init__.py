"""Files that appear whole or not at all, checked records, damaged files set aside, processes that share work."""
