package dht

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"pgregory.net/rapid"

	"skep/chunker/group"
	"skep/chunker/secret"
)

func signed(seed byte, number uint64, until int64, value string) (group.SlotRecord, []byte) {
	r := group.SlotRecord{Number: number, Until: until, Value: []byte(value)}
	word := r.Sign(secret.Key{seed}.Signer())
	r, err := group.ParseSlotRecord(word)
	if err != nil {
		panic(err)
	}
	return r, word
}

func TestValidator(t *testing.T) {
	now := time.Unix(1000, 0)
	v := validator{now: func() time.Time { return now }}
	r, word := signed(1, 5, 2000, "a")
	key := valueKey(r.Key())
	if err := v.Validate(key, word); err != nil {
		t.Errorf("valid record: %v", err)
	}
	other, _ := signed(2, 5, 2000, "a")
	_, ended := signed(1, 9, 1000, "a")
	altered := append([]byte(nil), word...)
	altered[len(altered)-1] ^= 1
	for name, c := range map[string]struct {
		key   string
		value []byte
	}{
		"another key": {valueKey(other.Key()), word},
		"short key":   {"/skep/abc", word},
		"namespace":   {"/pk/" + key[len("/skep/"):], word},
		"ended":       {key, ended},
		"altered":     {key, altered},
		"empty":       {key, nil},
		"long":        {key, make([]byte, group.MaxSlotRecord+1)},
	} {
		if err := v.Validate(c.key, c.value); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, newer := signed(1, 6, 2000, "b")
	if i, err := v.Select(key, [][]byte{word, ended, newer, altered, word}); err != nil || i != 2 {
		t.Errorf("selected %d, %v", i, err)
	}
	if _, err := v.Select(key, [][]byte{ended, altered}); !errors.Is(err, ErrRecord) {
		t.Errorf("none valid: %v", err)
	}
}

// Whoever compares the same records, in whatever order, selects the same one.
func TestSelectIsDeterministic(t *testing.T) {
	v := validator{now: func() time.Time { return time.Unix(1000, 0) }}
	rapid.Check(t, func(t *rapid.T) {
		var words [][]byte
		var key string
		for range rapid.IntRange(1, 6).Draw(t, "n") {
			r, w := signed(1, uint64(rapid.IntRange(0, 2).Draw(t, "number")), int64(rapid.IntRange(2000, 2002).Draw(t, "until")),
				rapid.StringN(0, 2, 2).Draw(t, "value"))
			words, key = append(words, w), valueKey(r.Key())
		}
		i, err := v.Select(key, words)
		if err != nil {
			t.Fatal(err)
		}
		shuffled := rapid.Permutation(words).Draw(t, "order")
		j, err := v.Select(key, shuffled)
		if err != nil || string(shuffled[j]) != string(words[i]) {
			t.Fatalf("selected another: %v", err)
		}
	})
}

func TestKeyIsBlinded(t *testing.T) {
	id := group.IDOf(secret.Key{1}.Signer())
	c := Key(id)
	if string(c.Hash()[2:]) == string(id[:]) || c != Key(id) || c == Key(group.ID{1}) {
		t.Errorf("key is %v", c)
	}
}

func TestBounded(t *testing.T) {
	ctx := t.Context()
	b := newBounded(10_000, ownerless)
	for i := range 1000 {
		k := datastore.NewKey(fmt.Sprint("/a/", i))
		if err := b.Put(ctx, k, make([]byte, 300)); err != nil {
			t.Fatal(err)
		}
		if ok, _ := b.Has(ctx, k); !ok || b.used > b.limit {
			t.Fatalf("entry %d: kept %v, %d bytes", i, ok, b.used)
		}
	}
	if n := len(b.m); n < 12 || n > 18 {
		t.Errorf("%d entries", n)
	}
	huge := datastore.NewKey("/huge")
	_ = b.Put(ctx, huge, make([]byte, 20_000))
	if _, err := b.Get(ctx, huge); !errors.Is(err, datastore.ErrNotFound) || len(b.m) < 12 {
		t.Errorf("an entry larger than all: %v, %d entries left", err, len(b.m))
	}
	res, err := b.Query(ctx, query.Query{Prefix: "/a", KeysOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	all, err := res.Rest()
	if err != nil || len(all) != len(b.m) {
		t.Errorf("query gave %d of %d, %v", len(all), len(b.m), err)
	}
	for _, e := range all {
		_ = b.Delete(ctx, datastore.NewKey(e.Key))
	}
	if b.used != 0 || len(b.m) != 0 {
		t.Errorf("%d bytes in %d entries left", b.used, len(b.m))
	}
	if n, err := b.GetSize(ctx, huge); n != -1 || err == nil {
		t.Errorf("size of nothing: %d, %v", n, err)
	}
}

// A query finds what lies below its path, as one does that looks at all there is; and
// looks at little where many others are.
func TestQuery(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBounded(4000, ownerless)
		part := rapid.SampledFrom([]string{"a", "b", "ab", "c"})
		keys := rapid.Map(rapid.SliceOfN(part, 0, 4), func(p []string) string { return "/" + strings.Join(p, "/") })
		for range rapid.IntRange(0, 40).Draw(t, "changes") {
			k := datastore.NewKey(keys.Draw(t, "key"))
			if rapid.Bool().Draw(t, "delete") {
				_ = b.Delete(t.Context(), k)
			} else {
				_ = b.Put(t.Context(), k, []byte{1})
			}
		}
		q := query.Query{Prefix: keys.Draw(t, "prefix"), KeysOnly: true, Orders: []query.Order{query.OrderByKey{}}}
		var all []query.Entry
		for k := range b.m {
			all = append(all, query.Entry{Key: k.String(), Size: 1})
		}
		want, _ := query.NaiveQueryApply(q, query.ResultsWithEntries(q, all)).Rest()
		res, err := b.Query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := res.Rest(); !slices.EqualFunc(got, want, func(a, b query.Entry) bool { return a.Key == b.Key }) {
			t.Fatalf("below %s: %v, want %v", q.Prefix, got, want)
		}
		known := 0
		for at, near := range b.near {
			known += len(near)
			if len(near) == 0 {
				t.Fatalf("nothing is near %s", at)
			}
		}
		if known != len(b.m) {
			t.Fatalf("%d of %d are known by what they begin with", known, len(b.m))
		}
	})
	b := newBounded(16<<20, provider)
	for i := range 10_000 {
		_ = b.Put(t.Context(), datastore.NewKey(fmt.Sprintf("/providers/%d/p", i)), nil)
	}
	if n := len(slices.Collect(b.below("/providers/77"))); n != 1 {
		t.Errorf("%d entries are looked at", n)
	}
}

// A peer that says to hold thousands of groups drives out what it said itself,
// not what others said.
func TestProviderFlood(t *testing.T) {
	b := newBounded(64<<10, provider)
	put := func(peer string, n int) datastore.Key {
		k := datastore.NewKey(fmt.Sprintf("/providers/GROUP%d/%s", n, peer))
		if err := b.Put(t.Context(), k, make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		return k
	}
	var honest []datastore.Key
	for i := range 20 {
		for p := range 3 {
			honest = append(honest, put(fmt.Sprint("PEER", p), i))
		}
	}
	for i := range 20_000 {
		put(fmt.Sprint("BAD", i%2), i)
	}
	kept := 0
	for _, k := range honest {
		if ok, _ := b.Has(t.Context(), k); ok {
			kept++
		}
	}
	if kept < len(honest)*9/10 || b.used > b.limit {
		t.Errorf("%d of %d are left, %d bytes", kept, len(honest), b.used)
	}
	for _, n := range b.of {
		b.used -= n
	}
	if b.used != 0 {
		t.Errorf("%d bytes have no owner", b.used)
	}
}

// Who floods the room for values with large ones does not drive out small ones.
func TestValueFlood(t *testing.T) {
	b := newBounded(1<<20, ownerless)
	put := func(name string, size int) datastore.Key {
		k := datastore.NewKey(name)
		if err := b.Put(t.Context(), k, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		return k
	}
	var small []datastore.Key
	for i := range 10 {
		small = append(small, put(fmt.Sprint("/skep/small", i), 500))
	}
	for i := range 5000 {
		put(fmt.Sprint("/skep/large", i), 15<<10)
	}
	for _, k := range small {
		if ok, _ := b.Has(t.Context(), k); !ok {
			t.Errorf("%v was driven out", k)
		}
	}
}

func FuzzValidate(f *testing.F) {
	r, word := signed(1, 5, 2000, "a")
	f.Add(valueKey(r.Key()), word)
	v := validator{now: func() time.Time { return time.Unix(1000, 0) }}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		if v.Validate(key, value) == nil {
			got, err := group.ParseSlotRecord(value)
			if err != nil || valueKey(got.Key()) != key || got.Until <= 1000 {
				t.Fatalf("%+v was taken under %q, %v", got, key, err)
			}
		}
		if i, err := v.Select(key, [][]byte{value, word}); err == nil && i > 1 {
			t.Fatal("selected what is not there")
		}
	})
}
