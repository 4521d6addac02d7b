"""Steps 2 to 4: model, weights, loaders, the loop, checkpoints, averages, the run.

In:    an Experiment and its folds.
Out:   a run's folder, with out-of-fold and test predictions.
Next:  `score`.
"""
