"""Speed on paper and on the clock: what a step costs, and how long it takes."""
