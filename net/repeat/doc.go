// Package repeat does things again and again: a set of keys, each of which is
// due at once when it is added and then every interval, a few at a time.
// Holders announce their groups with it and keepers put their records.
package repeat
