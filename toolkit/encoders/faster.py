"""The arithmetic in which this processor embeds faster than in float32."""

import re

from toolkit.encoders.record import EncoderRecord
from toolkit.storage.work import Work, machine, processor_fact

WORTH_SAYING = 60.0
"""Seconds that embedding took: below, nobody waits."""


def faster_here(record: EncoderRecord, took: Work | None) -> str | None:
    """`bf16` where the processor multiplies in it, else `int8` where it has AVX2 and the model is a transformer.

    None if that is not known, if embedding was not in float32 on a processor, or took no time to speak of.
    """
    if record.precision != "fp32" or took is None or took.seconds < WORTH_SAYING or took.on != machine():
        return None
    flags = processor_fact("flags").split()
    if {"avx512_bf16", "amx_bf16"} & set(flags):
        return "bf16"
    transformer = re.match("(timm:)?vit[-_]", record.model.lower())  # int8 leaves convolutions in float32
    return "int8" if "avx2" in flags and transformer else None
