"""Steps 5 and 7: entries, the ledger of their scores, the leaderboard, the test set.

In:    folders with out-of-fold and test predictions.
Out:   a database of scores that are appended and never edited; the board computed from it.
Next:  `combine` blends the entries, `improve` compares them.
"""
