"""Report: pages a person can open: the study of the data, and all runs with their scores.

In:    a folder of runs; a Study.
Out:   runs/report.html and runs/study/report.html, each one file without outside references.
Next:  what to try next is read from them.
"""
