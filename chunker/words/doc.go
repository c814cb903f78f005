// Package words turns the random number that a member starts from into
// recovery words and back.
//
// The words are a standard BIP-39 mnemonic from the English list: twelve of
// them stand for 128 random bits and a checksum of 4, each six more for 64 bits
// and 2. Only the list and the checksum are taken from BIP-39. The key is
// derived from the entropy itself, not from a stretched phrase: the words are
// never chosen by a person, so there is nothing to stretch.
//
// Everything else that a member owns can be had from these words (package
// keyring has the hierarchy), so an Entropy never prints itself; only Words
// and Phrase give it away.
package words
