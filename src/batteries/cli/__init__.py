"""The command: one thin function a verb, in the order of the flow.

In:    what the user typed.
Out:   tables, lines, exit codes; everything printed is printed here.
Next:  nothing; the library works without it.
"""
