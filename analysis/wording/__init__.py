"""The English of a report, and all of it: statistics hand over numbers and records, sentences are made here."""
