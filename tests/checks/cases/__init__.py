"""For each check: its solution, and wrong answers with the hint that each must meet."""
