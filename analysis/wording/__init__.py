"""The English of a report: statistics hand over numbers and records, and every sentence about them is made here."""
