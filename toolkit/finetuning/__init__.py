"""Fine-tuning makes another encoder: recipes, losses, the training loop, the search for settings, checkpoints."""
