package holder

import (
	"errors"

	"skep/chunker/group"
	"skep/net/wire"
)

func (h *Holder) putRecord(x *exchange, m *wire.PutRecordRequest) error {
	r, err := group.ParseSlotRecord(m.Record)
	if err != nil {
		return x.refuse(wire.Malformed, err.Error())
	}
	if err := h.keep.put(&r, m.Record, x.from); err != nil {
		var full *fullError
		if errors.As(err, &full) {
			return x.refuse(wire.Full, full.Error())
		}
		if errors.Is(err, errRecord) {
			return x.refuse(wire.Refused, err.Error())
		}
		return h.refuseStored(x, err)
	}
	return x.done(nil)
}

func (h *Holder) getRecord(x *exchange, m *wire.GetRecordRequest) error {
	word, err := h.keep.get(m.Key)
	if err != nil {
		return h.refuseStored(x, err)
	}
	return x.done(word)
}
