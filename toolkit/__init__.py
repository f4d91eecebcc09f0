"""Should I prompt CLIP, probe it, or fine-tune it?"""

__version__ = "0.1.0"
