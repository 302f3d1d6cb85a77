"""The attacks that Mailward withstands, as a table: start at table.py; row.py says what a row holds."""
