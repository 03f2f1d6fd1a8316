"""Sessions that are closed while clicks come in."""
