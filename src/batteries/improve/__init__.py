"""Step 8: is it really better, and what to try next.

In:    entries on the same rows.
Out:   comparisons with their noise.
Next:  go to step 0 and improve.
"""
