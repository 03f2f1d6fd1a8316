"""The search for better settings, on validation sessions and never on test ones."""
