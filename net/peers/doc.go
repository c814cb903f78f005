// Package peers is the directory of the peers that this one knows: where they
// are, what room they offer, in which region and domain they say they are, how
// far away, how reliable and how honest they have been.
//
// It learns from what its callers tell it: Heard for a peer that others spoke
// of, Seen for one that answered, Missed for one that did not, Said for what a
// hello said, Strike for a lie. It asks nobody itself and reads no clock but
// the one it was given.
//
// Availability is measured in windows of fixed length. Each window in which a
// peer was asked counts with the part of the answers that came; a window in
// which nobody answered at all counts for no one, as it was we who were away.
// The estimate begins at Prior and is an average at first, then an exponentially
// weighted one.
//
// A peer is judged by its silence, unless health does, of those that hold something.
// Only time counts in which it was asked and anybody answered: a device that was
// away for weeks finds its peers as it left them, until it has asked them again. Who
// is silent for long is suspect, then dead, and in the end forgotten; one that comes
// back counts again.
//
// The directory is bounded. When it is full, the worst entry goes, and a peer
// that was only heard of never drives out one that has answered: otherwise
// anybody could flush it with made-up peers. Encode and Decode carry it over a
// restart; writing the file is the caller's.
package peers
