"""Many trainings, compared fairly: searches for good settings, and the study of depth."""
