"""Small packages on disk, for what reads sources without running them."""


def plant(folder, files):
    """Write the files, by path and text, into the package ``flatbook`` of a folder."""
    for name, text in files.items():
        path = folder / "flatbook" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
