"""The milter edge: libmilter's callbacks become a Transaction, a Verdict becomes edits and a reply."""
