"""Pictures, where they lie and what they show: sources, the manifest, labels, who trains and who tests."""
