"""The contract's requests and answers, one module for each subject. How a job itself is shown is `jobs/view.py`."""
