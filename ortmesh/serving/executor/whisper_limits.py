"""What is known of Whisper's answers, for the program and for the task that reads its texts. Stage: executor."""

from __future__ import annotations

import zlib

MAX_BEAMS = 8
MAX_PROMPT = 200
"""Tokens of earlier text that count, the last ones: the decoder has positions for them and a text of 220."""
MAX_PHRASES = 400
"""That are favoured: 100 with a space before them and without, in two spellings."""
MAX_PHRASE_TOKENS = 200
MAX_BOOST = 10.0
"""Of a phrase's token, in natural logarithms."""
LOWEST_MEAN_LOGPROB = -1.0
"""A less probable text is guessed from noise (speech at 0 dB: -0.75 and better)."""
HIGHEST_COMPRESSION = 2.4
"""A text that zlib shrinks more than this repeats itself without end."""
SURE_OF_SILENCE = 0.6
"""Probability of no speech from which nothing is said; the most that 0 dB of white noise gave to speech was 0.18."""
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""At which texts are drawn, one after the other, while none is good (Radford et al. 2022, section 4.5)."""
DRAWS = 5
"""Texts drawn at each temperature, of which the likeliest counts."""


def compression(text: str) -> float:
    """How many times zlib shrinks a text."""
    written = text.encode()
    return len(written) / len(zlib.compress(written))
