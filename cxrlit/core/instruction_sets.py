"""CPU instruction sets that determine how fast a network runs."""

import re
from functools import cache
from pathlib import Path

NAMES = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "asimddp": "NEON-DOT",
    "bf16": "NEON-BF16",
}
"""Names by Linux's CPU flag, from the weakest to the strongest."""


@cache
def find_instruction_sets() -> tuple[str, ...]:
    """The members of ``NAMES`` that this CPU has, in order; empty where the system does not say (all but Linux)."""
    info = Path("/proc/cpuinfo")
    return read_flags(info.read_text(encoding="utf-8", errors="replace") if info.is_file() else "")


def read_flags(info: str) -> tuple[str, ...]:
    """Instruction sets of the first core, from the text of ``/proc/cpuinfo``.

    >>> read_flags("processor : 0\\nflags : fpu avx2 avx512f\\n\\nprocessor : 1\\nflags : fpu\\n")
    ('AVX2', 'AVX512')
    """
    found = re.search(r"^(?:flags|Features)\s*: (.*)", info, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return tuple(name for flag, name in NAMES.items() if flag in flags)


def computes_bf16() -> bool:
    """Whether this CPU has instructions for bf16; without them, bf16 is emulated and slower than fp32."""
    return not {"AVX512-BF16", "AMX-BF16"}.isdisjoint(find_instruction_sets())
