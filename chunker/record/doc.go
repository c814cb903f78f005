// Package record encodes the structured formats of skep: CBOR (RFC 8949) in
// core deterministic form, structs as arrays, decoded under strict bounds.
//
// Signed words carry their payload as bytes and sign exactly these, so no
// verifier ever re-encodes anything.
package record
