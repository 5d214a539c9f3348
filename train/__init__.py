"""The application that makes weights: `python -m train configs/NAME.py`."""
