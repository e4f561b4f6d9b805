"""Promotion of models: decides which model the workers use."""
