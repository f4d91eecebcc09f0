"""The steps in their order, each to be read like a recipe: embed, fine-tune, compare."""
