package dag

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// pbLink is one link of a DAG-PB node, with its CID in binary form.
type pbLink struct {
	cid   []byte
	name  string
	tsize uint64
}

// pbNode is a DAG-PB node.
type pbNode struct {
	links []pbLink
	data  []byte
}

// The fields of PBNode and PBLink.
const (
	pbNodeData  protowire.Number = 1
	pbNodeLinks protowire.Number = 2
	pbLinkHash  protowire.Number = 1
	pbLinkName  protowire.Number = 2
	pbLinkTsize protowire.Number = 3
)

// size is the length of a link's encoding without tag and length.
func (l *pbLink) size() int {
	return 3 + protowire.SizeBytes(len(l.cid)) + protowire.SizeBytes(len(l.name)) + protowire.SizeVarint(l.tsize)
}

// size is the length of n's encoding.
func (n *pbNode) size() int {
	total := 1 + protowire.SizeBytes(len(n.data))
	for i := range n.links {
		total += 1 + protowire.SizeBytes(n.links[i].size())
	}
	return total
}

// encode returns the canonical DAG-PB form. The links must be in order.
func (n *pbNode) encode() []byte {
	b := make([]byte, 0, n.size())
	for i := range n.links {
		l := &n.links[i]
		b = protowire.AppendTag(b, pbNodeLinks, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(l.size()))
		b = protowire.AppendTag(b, pbLinkHash, protowire.BytesType)
		b = protowire.AppendBytes(b, l.cid)
		b = protowire.AppendTag(b, pbLinkName, protowire.BytesType)
		b = protowire.AppendString(b, l.name)
		b = protowire.AppendTag(b, pbLinkTsize, protowire.VarintType)
		b = protowire.AppendVarint(b, l.tsize)
	}
	b = protowire.AppendTag(b, pbNodeData, protowire.BytesType)
	return protowire.AppendBytes(b, n.data)
}

// tsizes is the sum of the links' cumulative sizes. Each decoder bounds them so
// that it cannot overflow.
func (n *pbNode) tsizes() uint64 {
	var sum uint64
	for i := range n.links {
		sum += n.links[i].tsize
	}
	return sum
}

// decodePB reads the canonical form: links with all three fields in order, links
// sorted by name, then the data, every number in its shortest form. The result
// refers to plain.
func decodePB(plain []byte) (pbNode, error) {
	var n pbNode
	p := parser{plain}
	for !p.empty() && plain[len(plain)-len(p.b)] == tagByte(pbNodeLinks, protowire.BytesType) {
		body, ok := p.bytes(pbNodeLinks)
		if !ok {
			return pbNode{}, corrupt("node has a truncated link")
		}
		l, err := decodePBLink(body)
		if err != nil {
			return pbNode{}, err
		}
		if k := len(n.links); k > 0 && n.links[k-1].name > l.name {
			return pbNode{}, corrupt("node has unsorted links")
		}
		n.links = append(n.links, l)
	}
	data, ok := p.bytes(pbNodeData)
	if !ok || !p.empty() {
		return pbNode{}, corrupt("node does not end with its data")
	}
	n.data = data
	return n, nil
}

func decodePBLink(body []byte) (pbLink, error) {
	p := parser{body}
	hash, ok1 := p.bytes(pbLinkHash)
	name, ok2 := p.bytes(pbLinkName)
	tsize, ok3 := p.varint(pbLinkTsize)
	if !ok1 || !ok2 || !ok3 || !p.empty() || tsize > math.MaxInt64 {
		return pbLink{}, corrupt("node has a malformed link")
	}
	return pbLink{cid: hash, name: string(name), tsize: tsize}, nil
}

// parser consumes protobuf fields in their shortest form.
type parser struct{ b []byte }

func (p *parser) empty() bool { return len(p.b) == 0 }

// tagByte is the one byte of a tag of a small field number.
func tagByte(f protowire.Number, t protowire.Type) byte {
	return byte(protowire.EncodeTag(f, t))
}

func (p *parser) tag(f protowire.Number, t protowire.Type) bool {
	if p.empty() || p.b[0] != tagByte(f, t) {
		return false
	}
	p.b = p.b[1:]
	return true
}

func (p *parser) number() (uint64, bool) {
	v, n := protowire.ConsumeVarint(p.b)
	if n < 0 || n != protowire.SizeVarint(v) {
		return 0, false
	}
	p.b = p.b[n:]
	return v, true
}

func (p *parser) varint(f protowire.Number) (uint64, bool) {
	if !p.tag(f, protowire.VarintType) {
		return 0, false
	}
	return p.number()
}

func (p *parser) bytes(f protowire.Number) ([]byte, bool) {
	if !p.tag(f, protowire.BytesType) {
		return nil, false
	}
	n, ok := p.number()
	if !ok || n > uint64(len(p.b)) {
		return nil, false
	}
	out := p.b[:n:n]
	p.b = p.b[n:]
	return out, true
}
