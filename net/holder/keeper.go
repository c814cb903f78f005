package holder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"skep/chunker/group"
	"skep/net/repeat"
)

// errRecord says that a record is not kept, with the reason.
var errRecord = errors.New("the record is not kept")

// fullError says that a bound on the records is reached.
type fullError struct{ reason string }

// Error gives the reason.
func (e *fullError) Error() string { return e.reason }

// keeper keeps slot records and has them put in the directory again and again.
type keeper struct {
	store Records
	conf  Config

	mu      sync.Mutex // guards the fields below; held while a record is written, never on the network
	kept    map[group.SlotKey]kept
	byPeer  map[group.PeerKey]int
	publish *repeat.Set[group.SlotKey]
}

// kept is what the keeper remembers of a record; the rest is on disk.
type kept struct {
	until int64     // its own end
	came  time.Time // when it came last, or was found: no clock that was set since changes how long ago that is
	from  group.PeerKey
	over  bool // it had ended when collect looked last
}

func newKeeper(s Records, c Config) *keeper {
	return &keeper{store: s, conf: c, kept: map[group.SlotKey]kept{}, byPeer: map[group.PeerKey]int{}}
}

// load makes the index from what the store has. For want of one record, the others are
// not given up.
func (k *keeper) load() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.store.Records() {
		word, from, err := k.store.Record(key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			k.conf.Log.Error("a record was not read", "error", err)
			continue
		}
		r, err := group.ParseSlotRecord(word)
		if err != nil || r.Key() != key {
			if err := k.store.DropRecord(key); err != nil {
				k.conf.Log.Error("a record that is none was not removed", "error", err)
			}
			continue
		}
		k.remember(key, kept{until: r.Until, came: time.Now(), from: from})
	}
}

// start has all records put in the directory, those that there are spread over
// some minutes.
func (k *keeper) start(s *repeat.Set[group.SlotKey]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.publish = s
	for key := range k.kept {
		s.Add(min(10*time.Minute, k.conf.Republish/8), key)
	}
}

func (k *keeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.publish = nil
}

// hasEnded reports whether a record is not to be kept any more: at its own end, or when
// it was kept for the longest that any is.
func (k *keeper) hasEnded(e kept) bool {
	return k.conf.Now().Unix() >= e.until || time.Since(e.came) >= k.conf.KeepRecords
}

func (k *keeper) remember(key group.SlotKey, e kept) {
	k.forget(key)
	k.kept[key] = e
	k.byPeer[e.from]++
}

func (k *keeper) forget(key group.SlotKey) {
	e, ok := k.kept[key]
	if !ok {
		return
	}
	delete(k.kept, key)
	if k.byPeer[e.from]--; k.byPeer[e.from] == 0 {
		delete(k.byPeer, e.from)
	}
}

// put keeps a record whose signature was checked. One that is kept already
// costs nothing, and is kept as long again; one that does not replace what is
// kept gives errRecord.
func (k *keeper) put(r *group.SlotRecord, word []byte, from group.PeerKey) error {
	if k.conf.Now().Unix() >= r.Until {
		return fmt.Errorf("%w: it has ended", errRecord)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	key := r.Key()
	same, err := k.compare(key, r, word)
	if err != nil {
		return err
	}
	if same {
		k.remember(key, kept{until: r.Until, came: time.Now(), from: k.kept[key].from}) // it is wanted from now on again
		return nil
	}
	if err := k.makeRoom(key, from); err != nil {
		return err
	}
	if err := k.store.PutRecord(key, word, from); err != nil {
		return err
	}
	k.remember(key, kept{until: r.Until, came: time.Now(), from: from})
	if k.publish != nil {
		k.publish.Remove(key)
		k.publish.Add(0, key)
	}
	return nil
}

// compare reports whether a record is the one kept; an error says that it does
// not replace the one kept.
func (k *keeper) compare(key group.SlotKey, r *group.SlotRecord, word []byte) (same bool, err error) {
	if _, ok := k.kept[key]; !ok {
		return false, nil
	}
	have, _, err := k.store.Record(key)
	if errors.Is(err, fs.ErrNotExist) {
		k.forget(key)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if string(have) == string(word) {
		return true, nil
	}
	old, err := group.ParseSlotRecord(have)
	if err == nil && !r.Replaces(&old) {
		return false, fmt.Errorf("%w: number %d is kept, this is %d", errRecord, old.Number, r.Number)
	}
	return false, nil
}

// spared is the part of PeerRecords of which nothing goes for others: more than an owner
// brings to one keeper.
const spared = 8

// makeRoom makes sure that one more record of a peer fits. When there are too
// many, one of the peer that brought most goes, if this one brought fewer: who
// fills the room keeps out himself. Of who brought no more than a part of what one may
// bring, nothing goes: any number of keys with a record each drive out no owner's.
func (k *keeper) makeRoom(key group.SlotKey, from group.PeerKey) error {
	e, known := k.kept[key]
	if !(known && e.from == from) && k.byPeer[from] >= k.conf.PeerRecords {
		return &fullError{"too many records of this peer"}
	}
	if known || len(k.kept) < k.conf.Records {
		return nil
	}
	most := from
	for p, n := range k.byPeer {
		if n > max(k.byPeer[most], k.byPeer[from]+1, k.conf.PeerRecords/spared) {
			most = p
		}
	}
	for old, e := range k.kept { // in random order
		if most != from && e.from == most {
			return k.drop(old)
		}
	}
	return &fullError{"too many records"}
}

// drop gives up a record.
func (k *keeper) drop(key group.SlotKey) error {
	if err := k.store.DropRecord(key); err != nil {
		return err
	}
	k.forget(key)
	if k.publish != nil {
		k.publish.Remove(key)
	}
	return nil
}

// get returns the record kept under a key, or fs.ErrNotExist.
func (k *keeper) get(key group.SlotKey) ([]byte, error) {
	if !k.wants(key) {
		return nil, fs.ErrNotExist
	}
	word, _, err := k.store.Record(key)
	return word, err
}

// republish puts one record in the directory, after it has asked there for a
// newer one, which it then keeps instead; or for the same one, if it was
// damaged on the disk.
func (k *keeper) republish(ctx context.Context, key group.SlotKey) error {
	word, err := k.get(key)
	if err != nil && !k.wants(key) {
		return nil // it ended; collect will remove it
	}
	if newer, err := k.conf.Directory.GetRecord(ctx, key); err == nil && string(newer) != string(word) {
		word = k.adopt(key, newer, word)
	}
	if word == nil {
		return nil // nobody has it any more
	}
	return k.conf.Directory.PutRecord(ctx, word)
}

// wants reports whether the record under a key is to be kept now.
func (k *keeper) wants(key group.SlotKey) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, ok := k.kept[key]
	return ok && !k.hasEnded(e)
}

// adopt keeps a record that the directory had, if it counts more, and returns
// the one that counts.
func (k *keeper) adopt(key group.SlotKey, word, have []byte) []byte {
	r, err := group.ParseSlotRecord(word)
	if err != nil || r.Key() != key || k.conf.Now().Unix() >= r.Until {
		return have
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	e, ok := k.kept[key]
	if same, err := k.compare(key, &r, word); !ok || same || err != nil {
		return have
	}
	if err := k.store.PutRecord(key, word, e.from); err != nil {
		return have
	}
	k.remember(key, kept{until: r.Until, came: time.Now(), from: e.from})
	return word
}

// collect forgets records that have ended, and had when it looked last.
func (k *keeper) collect() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, e := range k.kept {
		if over := k.hasEnded(e); !over || !e.over {
			e.over = over
			k.kept[key] = e
			continue
		}
		if err := k.drop(key); err != nil {
			k.conf.Log.Warn("record was not deleted", "error", err)
		}
	}
}
