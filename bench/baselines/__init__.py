"""What DiReDi is measured against: each rival one function on the same ground, with the same images and epochs."""
