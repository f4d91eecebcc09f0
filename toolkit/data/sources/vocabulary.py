"""The words that data sets are written with: names of splits, labels, columns, and of files that are no pictures.

Every reader (folder, zip, tar, table, Parquet) asks here, so that a word means the same wherever it stands.
"""

import re

TRAIN = ("train", "training")
TEST = ("test", "testing", "eval", "evaluation")
VALIDATION = ("val", "valid", "validation", "dev")
"""The hub's own synonyms (`datasets`, `data_files.py`). Validation is tested on only where there is no test split."""
SPLIT_OF = {word: split for split, words in {"train": TRAIN, "test": TEST, "val": VALIDATION}.items() for word in words}

LABEL_WORDS = (
    (("real", "reals"), ("fake", "fakes")),
    (
        ("authentic", "genuine", "original", "pristine", "human"),
        ("generated", "synthetic", "artificial", "manipulated"),
    ),
    (("nature", "natural", "human"), ("ai", "aigc")),
)
"""Folders that say which label it is, as (real, not real), the surest words first: `nature` can be a category, too."""

GENERATORS = (
    *("gan", "diffusion", "sdv4", "sdv5", "sdxl", "sd1", "sd2", "sd3", "dalle", "dalle2", "dalle3", "dall", "glide"),
    *("midjourney", "ldm", "adm", "ddpm", "ddim", "vqdm", "wukong", "guided", "imagen", "flux", "pixart", "firefly"),
    *("kandinsky", "deepfake", "crn", "imle", "san", "seeingdark", "sitd", "whichfaceisreal", "diffusion1"),
)
GAN = re.compile(r"(pro|style|big|cycle|star|gau|att|info|dc|r3|w|ms|sn)_?gan|diffusion|\bgan\d*\b")
"""Words in the names of image generators, with which CNNDetection, GenImage and their like call their folders."""

WRAPPERS = ("images", "image", "imgs", "img", "pictures", "photos", "data", "dataset", "files", "jpg", "jpeg", "png")
"""Folders that say nothing, between a split and its labels."""

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
"""What the columns are called, the surest name first; `filePath`, `file_path` and `File-Path` count as `file path`."""

LEFT_BEHIND: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(.*/)?(\._[^/]*|\.DS_Store|__MACOSX/.*|\.AppleDouble/.*)"), "left by a Mac"),
    (re.compile(r"(.*/)?(Thumbs\.db|ehthumbs\.db|desktop\.ini)", re.IGNORECASE), "left by Windows"),
    (re.compile(r"(.*/)?(@eaDir|\.thumbnails|\.ipynb_checkpoints|\.git|\.cache)/.*"), "left by another program"),
)
"""Files that programs leave beside pictures, some of them named like pictures."""


def words_of(name: str) -> list[str]:
    """The words in a name, lower case: `trainB-00.parquet` -> train, b, parquet.

    >>> words_of("my_Testing-00012.parquet"), words_of("filePath")
    (['my', 'testing', 'parquet'], ['file', 'path'])
    """
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def split_named(name: str) -> str | None:
    """`train`, `test` or `val`, where the whole name is a word for it."""
    return SPLIT_OF.get(name.strip().lower())


def split_within(name: str) -> str | None:
    """`train`, `test` or `val`, where a word of the name is one for it. Of several, what does not train counts.

    >>> split_within("cifake-training-0.parquet"), split_within("contest.tar"), split_within("val_train_0")
    ('train', None, 'val')
    """
    found = [SPLIT_OF[word] for word in words_of(name) if word in SPLIT_OF]
    return next((split for split in ("test", "val", "train") if split in found), None)


def split_in_path(path: str) -> str | None:
    """The split that a word in a file's name says, else the innermost folder that is called like one."""
    *folders, name = path.split("/")
    return split_within(name) or next((split for split in map(split_named, reversed(folders)) if split), None)


def label_word(name: str) -> tuple[int, bool] | None:
    """How sure a folder's name is a label (0: surest), and whether it is the real one; None for other names.

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
    """Which program left this file beside the pictures, in words; None where it may be a picture."""
    return next((reason for pattern, reason in LEFT_BEHIND if pattern.fullmatch(name)), None)


def plain_column(name: str) -> str:
    """A column's name as `COLUMNS` spells it.

    >>> plain_column("filePath"), plain_column(" file_name"), plain_column("FILE-PATH")
    ('file path', 'file name', 'file path')
    """
    return " ".join(words_of(name)) or name.strip().lower()
