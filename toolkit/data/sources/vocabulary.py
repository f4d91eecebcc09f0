"""The names that data sets use for splits, labels, columns, generators and junk files.

Every reader (folder, zip, tar, table, Parquet) uses this module, so that a word means the same everywhere.
"""

import re

TRAIN = ("train", "training")
TEST = ("test", "testing", "eval", "evaluation")
VALIDATION = ("val", "valid", "validation", "dev")
"""The synonyms of Hugging Face (`datasets`, `data_files.py`). Validation serves as test split only if there is none."""
SPLIT_OF = {word: split for split, words in {"train": TRAIN, "test": TEST, "val": VALIDATION}.items() for word in words}

OF_IMAGES = re.compile(r"[ _-]*(set|data|images|pictures)$")
"""What may stand behind a word for a split, as in `Training Set`."""

LABEL_WORDS = (
    (("real", "reals"), ("fake", "fakes")),
    (
        ("authentic", "genuine", "original", "pristine", "human"),
        ("generated", "synthetic", "artificial", "manipulated"),
    ),
    (("nature", "natural", "human"), ("ai", "aigc")),
)
"""Names of label folders as (real, not real), the most reliable first: `nature` can be a category, too."""

GENERATORS = (
    *("gan", "diffusion", "sdv4", "sdv5", "sdxl", "sd1", "sd2", "sd3", "dalle", "dalle2", "dalle3", "dall", "glide"),
    *("midjourney", "ldm", "adm", "ddpm", "ddim", "vqdm", "wukong", "guided", "imagen", "flux", "pixart", "firefly"),
    *("kandinsky", "deepfake", "crn", "imle", "san", "seeingdark", "sitd", "whichfaceisreal", "diffusion1"),
)
GAN = re.compile(r"(pro|style|big|cycle|star|gau|att|info|dc|r3|w|ms|sn)_?gan|diffusion|\bgan\d*\b")
"""Words in generator names, as in the folders of CNNDetection, GenImage and similar data sets."""

WRAPPERS = ("images", "image", "imgs", "img", "pictures", "photos", "data", "dataset", "files", "jpg", "jpeg", "png")
"""Meaningless folders between a split and its labels."""

COLUMNS = {
    "path": (
        *("path", "filepath", "file path", "filename", "file name", "file", "image path", "img path", "image file"),
        *("image name", "img name", "relative path", "relpath", "image", "img", "images", "picture", "photo"),
        *("fname", "title", "name"),
    ),
    "label": ("label", "labels", "class", "target", "class name", "label name", "ground truth", "y"),
    "category": ("category", "categories", "class", "class name"),
    "split": ("split", "splits", "set", "subset", "partition", "phase", "usage"),
}
"""Names of columns, the most reliable first; `filePath`, `file_path` and `File-Path` count as `file path`."""

LEFT_BEHIND: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(.*/)?(\._[^/]*|\.DS_Store|__MACOSX/.*|\.AppleDouble/.*)"), "left by a Mac"),
    (re.compile(r"(.*/)?(Thumbs\.db|ehthumbs\.db|desktop\.ini)", re.IGNORECASE), "left by Windows"),
    (re.compile(r"(.*/)?(@eaDir|\.thumbnails|\.ipynb_checkpoints|\.git|\.cache)/.*"), "left by another program"),
)
"""Files that programs leave beside images, some of them with image suffixes."""
MAY_BE_LEFT = re.compile(r"(?:^|/)(?:[._@]|thumbs|ehthumbs|desktop)", re.IGNORECASE)
"""What each of `LEFT_BEHIND` begins with: it rules out nearly every name, in a fifth of the time."""


def words_of(name: str) -> list[str]:
    """The words in a name, lower case: `trainB-00.parquet` -> train, b, parquet.

    >>> words_of("my_Testing-00012.parquet"), words_of("filePath")
    (['my', 'testing', 'parquet'], ['file', 'path'])
    """
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def split_named(name: str) -> str | None:
    """`train`, `test` or `val` if the whole name is a word for it, else None.

    >>> split_named("Training Set"), split_named("test_images"), split_named("testimony")
    ('train', 'test', None)
    """
    plain = name.strip().lower()
    return SPLIT_OF.get(plain) or SPLIT_OF.get(OF_IMAGES.sub("", plain))


def split_folder(path: str) -> str | None:
    """The innermost folder of a file that is named like a split, None if none is."""
    return next((one for one in reversed(path.split("/")[:-1]) if split_named(one)), None)


def split_within(name: str) -> str | None:
    """`train`, `test` or `val` if the name contains a word for it, else None. Of several, train comes last.

    >>> split_within("cifake-training-0.parquet"), split_within("contest.tar"), split_within("val_train_0")
    ('train', None, 'val')
    """
    found = [SPLIT_OF[word] for word in words_of(name) if word in SPLIT_OF]
    return next((split for split in ("test", "val", "train") if split in found), None)


def split_in_path(path: str) -> str | None:
    """The split named in a file's name, else by the innermost folder named like a split."""
    *folders, name = path.split("/")
    return split_within(name) or next((split for split in map(split_named, reversed(folders)) if split), None)


def label_word(name: str) -> tuple[int, bool] | None:
    """For a folder named like a label, its rank in `LABEL_WORDS` and whether it means real; None for other names.

    >>> label_word("0_real"), label_word("AI"), label_word("cat")
    ((0, True), (2, False), None)
    """
    plain = re.sub(r"^\d+[\s_-]*|[\s_-]*(images|imgs|photos|pictures)$", "", name.strip().lower())
    for sure, words in enumerate(LABEL_WORDS):
        for real, kind in zip((True, False), words, strict=True):
            if plain in kind:
                return sure, real
    return None


def is_generator(name: str) -> bool:
    """Whether a folder's name sounds like an image generator's."""
    plain = name.lower()
    return bool(set(re.findall(r"[a-z]+\d?", plain)) & set(GENERATORS)) or bool(GAN.search(plain))


def left_behind(name: str) -> str | None:
    """The program that left this file beside the images, in words; None if it may be an image."""
    if not MAY_BE_LEFT.search(name):
        return None
    return next((reason for pattern, reason in LEFT_BEHIND if pattern.fullmatch(name)), None)


def plain_column(name: str) -> str:
    """A column's name as `COLUMNS` spells it.

    >>> plain_column("filePath"), plain_column(" file_name"), plain_column("FILE-PATH")
    ('file path', 'file name', 'file path')
    """
    return " ".join(words_of(name)) or name.strip().lower()
