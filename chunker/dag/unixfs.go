package dag

import (
	"bytes"

	"google.golang.org/protobuf/encoding/protowire"
)

// The types and fields of a UnixFS Data message, and the only parameters of a
// HAMT that this package writes and reads.
const (
	unixfsDirectory = 1
	unixfsFile      = 2
	unixfsHAMT      = 5

	fieldType      protowire.Number = 1
	fieldData      protowire.Number = 2
	fieldFileSize  protowire.Number = 3
	fieldBlockSize protowire.Number = 4
	fieldHashType  protowire.Number = 5
	fieldFanout    protowire.Number = 6

	hashMurmur3 = 0x22
	hamtWidth   = 256
)

func appendNumber(b []byte, f protowire.Number, v uint64) []byte {
	b = protowire.AppendTag(b, f, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

// dirData is the Data message of every plain directory.
var dirData = appendNumber(nil, fieldType, unixfsDirectory)

// fileData is the Data message of an inner node of a file.
func fileData(size int64, children []sub) []byte {
	b := appendNumber(nil, fieldType, unixfsFile)
	b = appendNumber(b, fieldFileSize, uint64(size))
	for i := range children {
		b = appendNumber(b, fieldBlockSize, uint64(children[i].size))
	}
	return b
}

// hamtData is the Data message of a HAMT shard with these slots.
func hamtData(slots []slot) []byte {
	var bitmap [hamtWidth / 8]byte
	for i := range slots {
		k := int(slots[i].index)
		bitmap[len(bitmap)-1-k/8] |= 1 << (k % 8)
	}
	b := appendNumber(nil, fieldType, unixfsHAMT)
	b = protowire.AppendTag(b, fieldData, protowire.BytesType)
	b = protowire.AppendBytes(b, bytes.TrimLeft(bitmap[:], "\x00"))
	b = appendNumber(b, fieldHashType, hashMurmur3)
	return appendNumber(b, fieldFanout, hamtWidth)
}

// unixfsType is the type that a Data message begins with, or 0.
func unixfsType(data []byte) uint64 {
	p := parser{data}
	t, _ := p.varint(fieldType)
	return t
}
