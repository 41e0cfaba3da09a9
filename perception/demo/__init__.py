"""The demo: a recorded drive through the pipeline while its sensors fail on a script."""
