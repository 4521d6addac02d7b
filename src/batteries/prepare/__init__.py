"""Steps 0 and 1: environment, seeds, tables, folds, augmentation, the study of the data.

In:    an Experiment.
Out:   checked tables, folds on disk, seeds for every use.
Next:  `train`.
"""
