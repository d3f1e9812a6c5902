"""Speech through the running service, beside faster-whisper on the same weights: words, speed, streams, voices."""
