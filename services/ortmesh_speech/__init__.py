"""SpeechService: tasks on speech."""
