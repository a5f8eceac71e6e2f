"""PonderTTT: when should a frozen code model spend compute on test-time training, and how much?"""

__version__ = "0.1.0"
