"""Step 6: averages of checkpoints, blends of predictions, submissions.

In:    entries.
Out:   new entries, and files for the leaderboard.
Next:  `improve` asks whether they are really better.
"""
