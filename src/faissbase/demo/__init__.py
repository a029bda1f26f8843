"""The demo: real packages, real questions and their exact answers, ready to load."""
