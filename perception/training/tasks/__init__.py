"""What training knows of a task, one file each; `perception.models.heads.half_of` finds it by name."""

OLD_WORDS = {"detection": "boxes2d"}
"""What tasks were called in configurations and checkpoints of earlier versions."""


def in_todays_words(text: str) -> str:
    """A name that ends in a task's, such as `weight_detection`, as it is today."""
    for old, new in OLD_WORDS.items():
        if text == old or text.endswith(f"_{old}"):
            return text.removesuffix(old) + new
    return text
