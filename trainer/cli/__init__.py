"""The trainer's command line interface."""
