"""Keys of metadata that say where in a file a document stands, and which source it follows."""

FILE = "file"  # its path, relative to the folder that was read
PAGE = "page"
SHEET = "sheet"
ROW = "row"
SLIDE = "slide"
HEADING = "heading"
# Of documents that follow a source, see `index --sync`: {"source": NAME, "file": PATH}.
SYNC = "_sync"
