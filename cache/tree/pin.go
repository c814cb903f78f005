package tree

// Pinned reports whether an inode's content is to stay on this device.
func (t *Tree) Pinned(Ino) bool { return false }
