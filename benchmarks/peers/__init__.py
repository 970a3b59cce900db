"""Gradient noise scales of other tools, each driven as its own documentation says.

None of these tools is a dependency: a module imports its tool when its loop starts, and where
that fails the benchmark says so and goes on. ``make bench-peers`` makes an environment with all of them.
"""
