"""The loop, and what it stands on: devices, memory, files that survive a crash."""
