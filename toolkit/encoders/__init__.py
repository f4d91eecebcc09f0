"""What turns a picture into a vector: CLIP models, the blocks inside them, and what needs no model."""
