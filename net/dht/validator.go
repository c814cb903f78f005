package dht

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"skep/chunker/group"
)

// namespace is the first part of the key of every value.
const namespace = "skep"

func valueKey(k group.SlotKey) string { return "/" + namespace + "/" + string(k[:]) }

// ErrRecord says that a value is not a slot record that is valid under its key.
var ErrRecord = errors.New("not a valid slot record")

// validator decides which values the table takes and which of several counts.
type validator struct{ now func() time.Time }

// Validate accepts a slot record that its slot's key has signed, under that
// key, until its end.
func (v validator) Validate(key string, value []byte) error {
	r, err := v.parse(key, value)
	if err != nil {
		return err
	}
	if v.now().Unix() >= r.Until {
		return fmt.Errorf("%w: it ended", ErrRecord)
	}
	return nil
}

func (v validator) parse(key string, value []byte) (group.SlotRecord, error) {
	raw, ok := strings.CutPrefix(key, "/"+namespace+"/")
	if !ok || len(raw) != len(group.SlotKey{}) {
		return group.SlotRecord{}, fmt.Errorf("%w: key", ErrRecord)
	}
	r, err := group.ParseSlotRecord(value)
	if err != nil {
		return group.SlotRecord{}, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if r.Key() != group.SlotKey([]byte(raw)) {
		return group.SlotRecord{}, fmt.Errorf("%w: under another key", ErrRecord)
	}
	return r, nil
}

// Select returns the index of the value that counts: the highest number, as
// group.SlotRecord.Newer has it. One that is not valid, or ended, never counts.
func (v validator) Select(key string, values [][]byte) (int, error) {
	best := -1
	var top group.SlotRecord
	for i, b := range values {
		r, err := v.parse(key, b)
		if err != nil || v.now().Unix() >= r.Until {
			continue
		}
		if best < 0 || r.Newer(&top) {
			best, top = i, r
		}
	}
	if best < 0 {
		return 0, fmt.Errorf("%w: none of %d", ErrRecord, len(values))
	}
	return best, nil
}
