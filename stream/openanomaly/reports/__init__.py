"""The report of a backtest, for people: one HTML file."""
