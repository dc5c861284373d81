"""Examples of programs and plugins."""
