"""What can go wrong in a way that the user can mend. The command line prints each as one line and exits with 2."""


class ToolkitError(Exception):
    """The message says what is wrong, where, and the command that mends it."""


class DataError(ToolkitError):
    """The data set, or the place where it should be."""


class ImageError(ToolkitError):
    """One image; the message is a short reason. Commands list such images and go on."""


class EncoderError(ToolkitError):
    """A model's name, its weights, or a checkpoint."""


class CacheError(ToolkitError):
    """The embedding cache cannot be read or written."""


class MissingEmbeddings(CacheError):
    """Vectors that were asked for have not been embedded yet."""


class SelectionError(ToolkitError):
    """The rows that were asked for do not exist: an unknown category, or too few images."""


class ResultsError(ToolkitError):
    """The results folder cannot be read or written."""
