"""Programs that measure. Each prints a table and writes JSON; none is a test."""
