package dag

import (
	"bytes"

	"skep/chunker/link"
)

// ChunkSize is the length of every chunk of a file but the last, in bytes.
const ChunkSize = 1 << 20

// linksPerNode is the width of a file's tree, that of the stock builder.
const linksPerNode = 174

// nodeOverhead bounds the bytes of an inner node: 174 links of less than 96
// bytes, and its Data message.
const nodeOverhead = 32 << 10

// The balanced layout: the tree over n chunks is the chunk itself if n is 1;
// otherwise a node whose children are the trees over its consecutive pieces of
// span(n) chunks each, the largest power of 174 below n. The last piece may be
// shorter, down to a single chunk, which is then a child of its own however high
// the node. So the tree depends on the chunks alone, and the position of a node
// says how many chunks and bytes it must hold.

// sub is such a tree over some consecutive chunks.
type sub struct {
	link  link.Link
	n     int64 // chunks
	size  int64 // bytes of content
	tsize int64 // bytes of content and of all nodes; -1 while unknown
}

// chunksOf returns the number of chunks of a file of this size.
func chunksOf(size int64) int64 {
	n := size / ChunkSize
	if size%ChunkSize != 0 {
		n++
	}
	return n
}

// span is the number of chunks below each child of the tree over n > 1 chunks.
func span(n int64) int64 {
	s := int64(1)
	for (n-1)/s >= linksPerNode {
		s *= linksPerNode
	}
	return s
}

// height is the number of levels of nodes of the tree over n chunks.
func height(n int64) int {
	h := 0
	for s := int64(1); (n-1)/s > 0; s *= linksPerNode {
		h++
	}
	return h
}

// pieces returns how many children the tree over n > 1 chunks has.
func pieces(n int64) int64 { return (n-1)/span(n) + 1 }

// bytesOf is the length of n chunks from first on in a file of size bytes.
func bytesOf(first, n, size int64) int64 {
	rest := size - first*ChunkSize
	if n > rest/ChunkSize {
		return rest
	}
	return n * ChunkSize
}

// childrenOf decodes the node of t, a tree over more than one chunk, of which all
// but the last chunk are whole. It returns ErrCorrupt for any other node than the
// one that the layout asks for.
func childrenOf(t sub, plain []byte) ([]sub, error) {
	node, err := decodePB(plain)
	if err != nil {
		return nil, err
	}
	s := span(t.n)
	if int64(len(node.links)) != pieces(t.n) {
		return nil, corrupt("file node has %d links for %d chunks", len(node.links), t.n)
	}
	children := make([]sub, len(node.links))
	for i := range children {
		first := int64(i) * s
		n := min(s, t.n-first)
		c, err := childOf(&node.links[i], sub{n: n, size: bytesOf(first, n, t.size)})
		if err != nil {
			return nil, err
		}
		children[i] = c
	}
	if !bytes.Equal(node.data, fileData(t.size, children)) {
		return nil, corrupt("file node has other sizes than its content")
	}
	if total := int64(node.tsizes()) + int64(len(plain)); t.tsize >= 0 && t.tsize != total {
		return nil, corrupt("file node has %d bytes below it, its link says %d", total, t.tsize)
	}
	return children, nil
}

// childOf completes what the layout says of a child with what its link says.
func childOf(l *pbLink, c sub) (sub, error) {
	sealed, err := sealedCID(l.cid)
	if err != nil {
		return sub{}, err
	}
	c.link, c.tsize = sealed, int64(l.tsize)
	if l.name != "" || c.tsize < c.size || c.tsize > c.size+(c.n-1)*nodeOverhead || !rightCodec(c) {
		return sub{}, corrupt("file node has a link that does not fit its place")
	}
	return c, nil
}

// rightCodec reports whether the link of t has the codec of its height.
func rightCodec(t sub) bool {
	if t.n == 1 {
		return t.link.Codec == link.Raw
	}
	return t.link.Codec == link.DagPB
}

// fileNode is the node above these children.
func fileNode(children []sub) (node pbNode, size int64) {
	node.links = make([]pbLink, len(children))
	for i := range children {
		c := &children[i]
		node.links[i] = pbLink{cid: cidOf(c.link), tsize: uint64(c.tsize)}
		size += c.size
	}
	node.data = fileData(size, children)
	return node, size
}
