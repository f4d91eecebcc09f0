"""Which arithmetic `embed` names as faster, by what the processor can do."""

from pathlib import Path

import pytest

from toolkit.encoders.faster import faster_here
from toolkit.storage import work
from toolkit.storage.work import Work


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("fpu avx2 fma", "int8"),
        ("fpu avx2 avx512f avx512_bf16", "bf16"),
        ("amx_tile amx_bf16 avx2", "bf16"),
        ("fpu", None),
    ],
)
def test_it_names_what_the_processor_has(
    flags: str, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: A processor\nflags\t\t: {flags}\n")
    monkeypatch.setattr(work, "CPU_FACTS", tmp_path / "cpuinfo")
    work.machine.cache_clear()
    long, short = (Work(seconds, work.machine()) for seconds in (600.0, 5.0))
    assert faster_here("fp32", long) == said
    assert faster_here("fp32", short) is None, "nobody waited"
    assert faster_here("int8", long) is None, "it is that already"
    assert faster_here("fp32", Work(600.0, "NVIDIA H200")) is None, "a GPU did it"
    work.machine.cache_clear()
