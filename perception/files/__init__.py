"""Reading and writing files that may be hostile, torn or foreign: one place for each kind.

Everything that reads text, YAML, JSON, CSV, zip archives or folders of samples goes through here, so that
a wrong file gives one `AnySenseError` that names it; everything that writes an artefact goes through
`writing`, so that a full disk or a kill leaves the old file or the new one, never half of one.
"""
