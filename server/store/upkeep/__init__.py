"""Work on the files of collections while no server has them open: check, back up, restore."""
