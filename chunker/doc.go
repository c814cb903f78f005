// Package chunker is the bottom layer of skep: it turns files and directories
// into sealed blocks, blocks into packs, packs into shards, and back, and it
// holds the keys that do so.
//
// Everything below this folder is pure: functions of their inputs, without
// clock, disk, network or goroutines of their own that outlive a call. Nothing
// here imports another layer of skep. The byte formats are described in
// docs/formats.md and pinned by the vectors under testdata.
package chunker
