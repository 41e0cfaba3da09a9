"""Fleets of recordings: labelled, judged or converted chunk by chunk on any number of workers, and resumed

A job (`job.Job`) names recordings and what is done with them.  Each is looked at (`plan`), cut into chunks,
and worked on (`work`) here or on Ray (`ray_workers`, the only file that imports it).  What comes out goes to
a folder, here or anywhere fsspec reaches (`places`): Parquet (`rows`), labels, a manifest.
"""
