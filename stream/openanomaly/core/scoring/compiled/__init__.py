"""Compiled twin of what `Scorer` does with usual steps: a row at a time, in one pass over its state.

Every operation is that of channels.py, levels.py and episodes.py, in their order and precision, so
both give the same bits: a worker that repeats a run may be compiled one time and not the other. Not
here: least deviations, mutes and ranges of values, which few pipelines have.
"""
