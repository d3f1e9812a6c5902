"""NlpService: tasks on texts."""
