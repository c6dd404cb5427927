"""Compiled twins of what a window worker does with every sample, a row at a time.

Each function says which one it is the twin of; both give the same bits, and the same counts.
"""
