"""Tasks: what comes out, one file each; `registry.TASKS` holds ours and those of plug-ins."""
