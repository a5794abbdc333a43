"""Vector databases that keep collections elsewhere, each behind the same seam."""
