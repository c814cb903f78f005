// Package packfiles keeps the packs of metadata that this device wrote, sealed
// as they are at their holders: the newest commit can be read from them without
// any peer, and the tables be made anew.
package packfiles
