"""The program: sources, pipeline, admin endpoints and command line."""
