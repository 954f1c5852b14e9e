"""Measures of signals: by recording and machine, beside the baselines, and alarms without labels."""
