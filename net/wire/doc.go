// Package wire is the shard protocol, /skep/shard/1: what a peer asks of a
// holder, and what comes back.
//
// A stream carries one exchange. The asker sends one frame, a request; the
// holder sends one frame, its answer, and both close. A frame is nine bytes
// (a tag, the header's length, the body's length), a header in CBOR, and a raw
// body. In a request the tag is the kind of message, in an answer the status.
// Only a put has a body in its request, the shard; only get, manifests and
// prove have one in their answers. So the many bytes of an exchange are never
// inside CBOR and are written and read in place.
//
// Every length is compared with a limit of its kind before anything is
// allocated for it, and every request is checked for what can be checked
// without state: what passes ReadRequest is well formed, not yet allowed.
//
// The package opens no stream and keeps no state. docs/protocol.md
// describes the messages for readers of other implementations.
package wire
