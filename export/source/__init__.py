"""Files of a model's folder, read and checked one kind at a time, and the download of such a folder."""
