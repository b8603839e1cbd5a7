"""From a finished picture to its file and its record, while the next one is drawn."""
