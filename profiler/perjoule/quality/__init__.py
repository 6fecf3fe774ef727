"""Quality of the very file and engine that are timed."""
