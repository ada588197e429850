"""The data sets, and the division of their classes into folds."""
