package hosted

import (
	"container/list"

	"skep/chunker/group"
)

// maxHeads bounds the heads kept in memory, in bytes: those of some hundred
// shards of 4 MiB, so that many small ranges of one shard read its tree once.
const maxHeads = 4 << 20

// headCache keeps the heads last used. Not for concurrent use.
type headCache struct {
	byKey map[headKey]*list.Element // of *cachedHead
	order list.List                 // the last used first
	bytes int
}

type headKey struct {
	id     group.ID
	number uint16
}

type cachedHead struct {
	key  headKey
	head head
}

func (h *head) bytes() int { return len(h.Manifest) + len(h.outboard) + 256 }

func (c *headCache) get(id group.ID, number uint16) (head, bool) {
	e, ok := c.byKey[headKey{id, number}]
	if !ok {
		return head{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cachedHead).head, true
}

func (c *headCache) add(id group.ID, number uint16, hd head) {
	c.remove(id, number)
	if c.byKey == nil {
		c.byKey = map[headKey]*list.Element{}
	}
	key := headKey{id, number}
	c.byKey[key] = c.order.PushFront(&cachedHead{key, hd})
	c.bytes += hd.bytes()
	for c.bytes > maxHeads && c.order.Len() > 1 {
		last := c.order.Back().Value.(*cachedHead)
		c.remove(last.key.id, last.key.number)
	}
}

func (c *headCache) remove(id group.ID, number uint16) {
	key := headKey{id, number}
	if e, ok := c.byKey[key]; ok {
		c.bytes -= e.Value.(*cachedHead).head.bytes()
		c.order.Remove(e)
		delete(c.byKey, key)
	}
}
