"""Default weights of open_clip's models, and the models that have a QuickGELU variant.

Plain data, so that neither torch nor open_clip is imported. A test compares it with open_clip's own list.
"""

from fnmatch import fnmatchcase

OPENAI = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336")
"""Models trained by OpenAI, with the activation QuickGELU (x · sigmoid(1.702 x))."""

QUICK_GELU_TWINS = (*OPENAI, "ViT-H-14", "ViT-H-14-378", "ViT-bigG-14", "ViT-H-14-worldwide", "ViT-L-14-worldwide")
"""Models that open_clip also has as `NAME-quickgelu`."""

TAGS = {
    **{name: "openai" for model in OPENAI for name in (model, f"{model}-quickgelu")},
    "*SigLIP*": "webli",
    "MobileCLIP2-*": "dfndr2b",
    "MobileCLIP-*": "datacompdr",
    "PE-Core-*": "meta",
    "ViTamin-*": "datacomp1b",
    "*-CLIPA*": "datacomp1b",
    "*-worldwide*": "metaclip2_worldwide",
    "EVA01-g-14": "laion400m_s11b_b41k",
    "EVA01-g-14-plus": "merged2b_s11b_b114k",
    "EVA02-B-16": "merged2b_s8b_b131k",
    "EVA02-E-14": "laion2b_s4b_b115k",
    "EVA02-E-14-plus": "laion2b_s9b_b144k",
    "EVA02-L-14": "merged2b_s4b_b131k",
    "EVA02-L-14-336": "merged2b_s6b_b61k",
    "ViT-B-16-plus-240": "laion400m_e32",
    "ViT-B-32-256": "datacomp_s34b_b86k",
    "ViT-H-14": "laion2b_s32b_b79k",
    "ViT-H-14-378*": "dfn5b",
    "ViT-H-14-quickgelu": "dfn5b",
    "ViT-bigG-14": "laion2b_s39b_b160k",
    "ViT-bigG-14-quickgelu": "metaclip_fullcc",
    "ViT-g-14": "laion2b_s34b_b88k",
    "coca_ViT-?-??": "laion2b_s13b_b90k",
    "convnext_base": "laion400m_s13b_b51k",
    "convnext_base_w": "laion2b_s13b_b82k_augreg",
    "convnext_base_w_320": "laion_aesthetic_s13b_b82k_augreg",
    "convnext_large_d": "laion2b_s26b_b102k_augreg",
    "convnext_large_d_320": "laion2b_s29b_b131k_ft_soup",
    "convnext_xxlarge": "laion2b_s34b_b82k_augreg_soup",
    "nllb-clip-*": "v1",
    "roberta-ViT-B-32": "laion2b_s12b_b32k",
    "xlm-roberta-base-ViT-B-32": "laion5b_s13b_b90k",
    "xlm-roberta-large-ViT-H-14": "frozen_laion5b_s13b_b90k",
}
"""Model name or pattern -> open_clip's tag of its best-known weights; the first match counts."""


def default_tag(model: str) -> str:
    """The tag for `model`; empty if open_clip has no weights of it.

    >>> default_tag("ViT-B-32"), default_tag("ViT-B-16-SigLIP2"), default_tag("convnext_tiny")
    ('openai', 'webli', '')
    """
    return next((tag for pattern, tag in TAGS.items() if fnmatchcase(model, pattern)), "")
