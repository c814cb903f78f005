// Package dht is the swarm's directory: a Kademlia table of its own (protocol
// prefix /skep) with two kinds of entries.
//
//   - Provider records say who holds a group. They are under the group's
//     blinded id, so that those who crawl the table learn of a group only when
//     they know its id already.
//   - Slot records (group.SlotRecord) are values under their slot key, valid
//     only with that key's signature and until their own end; among several the
//     highest number counts.
//
// Every peer is a server of the table. What it keeps for others is in memory
// and bounded. Table entries age: a value lives 48 hours and a provider record
// as long, so holders provide again and keepers put their records again
// (net/holder). A holder has some thousands of groups for each TiB; one lookup
// each, a few at a time and spread over a day, is a handful of messages a
// second, works alike in a swarm of two and of thousands, and needs no more of
// the library than its table. The directory is a help, never the truth: the
// drive's own group table and the keepers come first.
//
// Addresses that others tell of a peer are hearsay: they are kept by who told them, dialled
// a few at a time and one of each teller in turn, and never put into the host's own book.
//
// No address or diversity filter is applied by default: peers of a LAN or of one
// machine are a swarm like any other.
package dht
