"""Folder: from a folder of somebody's data to an experiment.

In:    tables, images.
Out:   what was guessed of them, and the file that says so.
Next:  `new` makes the experiment's folder.

    layout.py    which file is what             roles.py     which column holds what
    tables.py    id, target and task            guess.py     all together, each with its reason
    generate.py  the experiment's text
"""
