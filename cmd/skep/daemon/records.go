package daemon

import (
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/record"
	"skep/cmd/skep/home"
)

const (
	keyringFile  = "keyring"
	recoveryFile = "recovery"
)

// recoveryRecords are the sealed copies of the recovery record, which devices bring
// to keepers again and again, and one copy of the newest keyring that keepers are
// known to have: none before they have one.
type recoveryRecords struct {
	_        struct{} `cbor:",toarray"`
	Recovery [][]byte
	Keyring  []byte
}

func loadRecovery(h home.Dir) (recoveryRecords, error) {
	var r recoveryRecords
	b, err := h.ReadFile(recoveryFile)
	if err != nil || b == nil {
		return r, err
	}
	return r, record.Decode(b, 1<<20, &r)
}

func (r recoveryRecords) save(h home.Dir) error { return h.WriteFile(recoveryFile, record.Encode(r)) }

func slotKeys(slots []keyring.Slot) []group.SlotKey {
	out := make([]group.SlotKey, len(slots))
	for i, s := range slots {
		out[i] = s.Key()
	}
	return out
}
