"""SmolLM2-135M-Instruct with weights, hidden states, keys and values of 16 bits, for GPUs, from the same GGUF."""

from collections.abc import Mapping
from pathlib import Path

from ortmesh.catalogue.recipes import smollm2_135m_instruct
from ortmesh.catalogue.recipes._gguf import in_16_bits

OUTPUTS = smollm2_135m_instruct.OUTPUTS


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write the same files; the weights are those of the GGUF, which has 4 bits and a scale and an offset a block, at
    the nearest number of 16."""
    smollm2_135m_instruct.write(sources, out, in_16_bits)
