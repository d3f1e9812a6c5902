"""Voices: Hibari, and two of espeak-ng, which Debian has; all of them always say a text in the same way."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from hibari import Hibari

from bench.speech.sounds import RATE, Samples

HIBARI = "Hibari"
ESPEAK = {"espeak-ng, American": "en-us+m3", "espeak-ng, British": "en-gb"}
ESPEAK_PACE = ("-s", "145", "-g", "4")
"""Words a minute, and pauses between them in 10 ms: at its usual 175 without pauses all recognizers hear it worse."""
VOICES = (HIBARI, *ESPEAK)
PROGRAM, INSTALL = "espeak-ng", ("apt-get", "install", "-y", "-q", "espeak-ng")
HIBARI_RATE = 24_000
SILENT = 0.01
"""Of the loudest sample: what is quieter at a text's edges is not the voice."""


class NoVoice(Exception):
    """espeak-ng is not there and could not be installed."""


def need_espeak() -> None:
    """Installs espeak-ng when it is missing. NoVoice with what to do when that does not work."""
    if shutil.which(PROGRAM) is not None:
        return
    command = " ".join(INSTALL)
    try:
        subprocess.run(INSTALL, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise NoVoice(f"two of the three voices are espeak-ng's: install it (Debian: {command})") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip() or error.stdout.strip()
        raise NoVoice(f"two of the three voices are espeak-ng's, and `{command}` failed: {reason}") from None


def say(text: str, voice: str) -> Samples:
    """The text at 16 kHz, without the silence at its edges."""
    spoken, rate = _hibari(text) if voice == HIBARI else _espeak(text, ESPEAK[voice])
    samples = np.asarray(soxr.resample(spoken, rate, RATE), np.float32)
    loud = np.flatnonzero(np.abs(samples) > SILENT * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def _hibari(text: str) -> tuple[Samples, int]:
    return np.asarray(_model()(text, seed=0), np.float32), HIBARI_RATE


def _espeak(text: str, name: str) -> tuple[Samples, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        subprocess.run([PROGRAM, "-v", name, *ESPEAK_PACE, "-w", str(path)], input=text, text=True, check=True)
        samples, rate = soundfile.read(path, dtype="float32")
    return samples, rate


@cache
def _model() -> Any:
    return Hibari(threads=1)
