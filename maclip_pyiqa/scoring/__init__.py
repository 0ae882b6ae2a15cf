"""Many files: find, read, batch, score, rows, tables. Nothing here knows a command line."""
