"""What operators run: backup, archive, maintenance, checks, quarantine, reload."""
