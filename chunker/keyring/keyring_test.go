package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/group"
	"skep/chunker/secret"
	"skep/chunker/words"
)

// key returns a fixed secret.
func key(b byte) (k secret.Key) {
	for i := range k {
		k[i] = b ^ byte(i*37+i*i)
	}
	return k
}

func peer(b byte) (p group.PeerKey) {
	p[0], p[31] = b, b
	return p
}

func device(b byte, prefix uint32) Device {
	return Device{Key: peer(b), Prefix: prefix, Name: fmt.Sprintf("device %d", b), Created: 1_800_000_000}
}

// sample is a keyring with something of everything, all of it fixed.
func sample(root secret.Key) Keyring {
	own := Drive{ID: DriveID{1, 2, 3}, Name: "my drive", NameKey: key(0x11), Epochs: []Epoch{
		{Number: 1, Read: key(0x12), Convergence: key(0x13)},
		{Number: 2, Read: key(0x14), Convergence: key(0x15)},
	}}
	theirs := Drive{ID: DriveID{9}, Name: "their folder", NameKey: key(0x21), Epochs: []Epoch{
		{Number: 4, Read: key(0x22), Convergence: key(0x23)},
	}}
	return Keyring{
		Version:  keyringVersion,
		Number:   7,
		Drives:   []Drive{own},
		Devices:  []Certificate{Certify(root, device(1, 1)), Certify(root, device(2, 70_000))},
		Received: []Received{{From: peer(5), Drive: theirs}},
		Old:      []OldRoot{{Root: key(0x31), Replaced: 1_700_000_000}},
		Taken:    []uint32{5, 1 << 20},
	}
}

const until = 2_000_000_000

func TestRecordsRoundTrip(t *testing.T) {
	root, recovery := key(1), key(2)
	k := sample(root)
	sealed, err := SealKeyring(root, k, until)
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenKeyring(root, sealed, 0)
	if err != nil || !reflect.DeepEqual(got, k) {
		t.Errorf("keyring: %v\n got %+v\nwant %+v", err, got, k)
	}
	for i := range sealed { // any one slot suffices
		if _, err := OpenKeyring(root, sealed[i:i+1], k.Number); err != nil {
			t.Errorf("keyring from slot %d: %v", i, err)
		}
	}

	r := Recovery{Version: recoveryVersion, Root: root, Created: 1_800_000_000}
	records, err := SealRecovery(recovery, r, 3, until)
	if err != nil {
		t.Fatal(err)
	}
	back, number, err := OpenRecovery(recovery, records)
	if err != nil || back != r || number != 3 {
		t.Errorf("recovery: %v, number %d", err, number)
	}

	slots := HeadSlots(root, k.Drives[0].ID, peer(1), k.Drives[0].Newest())
	heads, err := SealHead(slots, 99, until, []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := SealHead(slots, 99, until, []byte("payload")); err != nil || !reflect.DeepEqual(again, heads) {
		t.Errorf("a head that is sealed again is another one: %v", err)
	}
	h, err := OpenHead(slots, heads, 98)
	if err != nil || h.Number != 99 || h.Until != until || string(h.Value) != "payload" {
		t.Errorf("head: %v, %+v", err, h)
	}
}

func TestRecordsLieUnderTheirSlotKeys(t *testing.T) {
	root := key(1)
	slots := KeyringSlots(root)
	sealed, err := SealKeyring(root, sample(root), until)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]bool{}
	for i, b := range sealed {
		r, err := group.ParseSlotRecord(b)
		if err != nil || r.Key() != slots[i].Key() || r.Until != until {
			t.Fatalf("slot %d: %v", i, err)
		}
		values[string(r.Value)] = true
	}
	if len(values) != Slots {
		t.Error("two slots hold the same bytes")
	}
}

func TestOpenRefusesOthers(t *testing.T) {
	root := key(1)
	k := sample(root)
	d := k.Drives[0]
	keyrings, _ := SealKeyring(root, k, until)
	recoveries, _ := SealRecovery(root, Recovery{Root: key(9)}, 1, until)
	heads, _ := SealHead(HeadSlots(root, d.ID, peer(1), d.Newest()), 1, until, nil)
	altered := bytes.Clone(keyrings[0])
	altered[len(altered)-1] ^= 1
	for name, candidates := range map[string][][]byte{
		"none":           nil,
		"garbage":        {nil, []byte("x"), bytes.Repeat([]byte{0xff}, 30<<10)},
		"altered":        {altered},
		"other kinds":    append(recoveries, heads...),
		"another root's": mustSeal(t, key(3), k),
	} {
		if _, err := OpenKeyring(root, candidates, 0); !errors.Is(err, ErrAbsent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := HeadSlots(root, d.ID, peer(1), d.Epochs[0])
	if _, err := OpenHead(other, heads, 0); !errors.Is(err, ErrAbsent) {
		t.Errorf("a head opens with the secret of another epoch: %v", err)
	}
}

func mustSeal(t *testing.T, root secret.Key, k Keyring) [][]byte {
	t.Helper()
	out, err := SealKeyring(root, k, until)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestHighestNumberThatOpensWins(t *testing.T) {
	root := key(1)
	slots := HeadSlots(root, DriveID{1}, peer(1), Epoch{Number: 1, Read: key(2)})
	head := func(number uint64, value string) []byte {
		out, err := SealHead(slots, number, int64(number%1000), []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		return out[number%Slots]
	}
	broken := bytes.Clone(head(50, "broken"))
	broken[len(broken)/2] ^= 1
	const far = 1 << 40
	for _, c := range []struct {
		name       string
		candidates [][]byte
		seen       uint64
		want       string
		err        error
	}{
		{"highest", [][]byte{head(3, "c"), head(9, "i"), head(7, "g")}, 0, "i", nil},
		{"broken ones do not count", [][]byte{head(3, "c"), broken}, 0, "c", nil},
		{"the one seen", [][]byte{head(3, "c"), head(4, "d")}, 4, "d", nil},
		{"older than seen", [][]byte{head(3, "c"), head(4, "d")}, 5, "", ErrStale},
		{"jump to the bound", [][]byte{head(3, "c"), head(MaxJump, "max")}, 0, "max", nil},
		{"jump over the bound", [][]byte{head(3, "c"), head(MaxJump+1, "over")}, 0, "c", nil},
		{"only jumps", [][]byte{head(1<<64-1, "over")}, 0, "", ErrJump},
		{"far, but seen near", [][]byte{head(far, "far")}, far - 1, "far", nil},
		{"two of one number", [][]byte{head(6, "a"), head(6, "b")}, 0, "b", nil},
		{"two of one number, the other way", [][]byte{head(6, "b"), head(6, "a")}, 0, "b", nil},
	} {
		h, err := OpenHead(slots, c.candidates, c.seen)
		if !errors.Is(err, c.err) || string(h.Value) != c.want {
			t.Errorf("%s: %q, %v", c.name, h.Value, err)
		}
	}
}

func TestKeyringsOfOneNumberMerge(t *testing.T) {
	root := key(1)
	base := sample(root)
	a := base.WithDrive(NewDrive("from a")).WithDevice(Certify(root, device(3, 3)))
	b := base.WithDrive(NewDrive("from b")).WithDevice(Certify(root, device(4, 4)))
	b = b.WithDrive(b.Drives[0].NextEpoch())
	a = a.WithDrive(a.Drives[0].NextEpoch())
	x, err := OpenKeyring(root, append(mustSeal(t, root, a)[:1], mustSeal(t, root, b)[1]), 0)
	if err != nil {
		t.Fatal(err)
	}
	y, err := OpenKeyring(root, append(mustSeal(t, root, b)[:1], mustSeal(t, root, a)[1]), 0)
	if err != nil || !reflect.DeepEqual(x, y) {
		t.Fatalf("the order of candidates matters: %v", err)
	}
	if len(x.Drives) != 3 || len(x.Known(root)) != 4 || len(x.Received) != 1 || len(x.Old) != 1 {
		t.Errorf("something is missing: %+v", x)
	}
	d, _ := x.Drive(base.Drives[0].ID)
	if len(d.Epochs) != 4 {
		t.Errorf("%d epochs after two were begun at once, want both: 4", len(d.Epochs))
	}
	again, err := OpenKeyring(root, mustSeal(t, root, x), 0)
	if err != nil || !reflect.DeepEqual(again, x) {
		t.Errorf("the merged keyring does not seal and open: %v", err)
	}
}

// Joining takes nothing away, changes the number only if something is new, and ends.
func TestJoin(t *testing.T) {
	root := key(1)
	base := sample(root)
	a, b := base.WithDevice(Certify(root, device(3, 3))), base.WithDevice(Certify(root, device(4, 4)))
	a.Number++
	b.Number++
	both := Join(a, b)
	if both.Number != a.Number+1 || len(both.Known(root)) != 4 {
		t.Fatalf("number %d, %d devices", both.Number, len(both.Known(root)))
	}
	if other := Join(b, a); !reflect.DeepEqual(other, both) {
		t.Error("the order matters")
	}
	late := base
	late.Number = both.Number + 5 // somebody who does not know of a and b was there
	for name, c := range map[string]struct{ a, b, want Keyring }{
		"the same":             {a, a, a},
		"nothing new":          {both, a, both},
		"nothing new, reverse": {a, both, both},
		"an older one":         {base, a, a},
		"nothing at all":       {Keyring{}, a, a},
	} {
		if got := Join(c.a, c.b); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: number %d, %d devices", name, got.Number, len(got.Known(root)))
		}
	}
	if got := Join(late, both); got.Number != late.Number+1 || len(got.Known(root)) != 4 {
		t.Errorf("number %d, %d devices", got.Number, len(got.Known(root)))
	}
}

func TestRenew(t *testing.T) {
	old, root := key(1), key(2)
	k := sample(old)
	n := k.Renew(old, root, []group.PeerKey{peer(2)}, 1_900_000_000)
	if n.Number != 1 || len(n.Old) != 2 || n.Old[1].Root != old || n.Old[1].Replaced != 1_900_000_000 {
		t.Errorf("the old root is not held: %+v", n)
	}
	if known := n.Known(root); len(known) != 1 || known[0].Key != peer(2) || known[0].Prefix != 70_000 {
		t.Errorf("devices: %+v", known)
	}
	if len(n.Known(old)) != 0 {
		t.Error("certificates of the old root remain")
	}
	was, is := k.Drives[0], n.Drives[0]
	if is.ID != was.ID || is.Newest().Number != was.Newest().Number+1 || is.Newest().Read == was.Newest().Read {
		t.Errorf("no new epoch: %v", is)
	}
	if !reflect.DeepEqual(k, sample(old)) {
		t.Error("Renew changed the old keyring")
	}
	nonce := [16]byte{4}
	for _, r := range []secret.Key{old, root, key(0x31)} {
		gk := group.KeyOf(r, nonce)
		got, ok := n.GroupKey(root, group.IDOf(gk), nonce)
		if !ok || !got.Equal(gk) {
			t.Errorf("no key for a group of root %x", r[:1])
		}
	}
	if _, ok := n.GroupKey(root, group.IDOf(group.KeyOf(key(77), nonce)), nonce); ok {
		t.Error("a key for a stranger's group")
	}
}

func TestKeyringBounds(t *testing.T) {
	root := key(1)
	d := NewDrive("x")
	for name, k := range map[string]Keyring{
		"no number":       {},
		"no epoch":        {Number: 1, Drives: []Drive{{ID: DriveID{1}}}},
		"epochs unsorted": {Number: 1, Drives: []Drive{{Epochs: []Epoch{{Number: 2}, {Number: 1}}}}},
		"drive twice":     {Number: 1, Drives: []Drive{d, d}},
		"long name":       {Number: 1, Drives: []Drive{{Name: strings.Repeat("x", MaxName+1), Epochs: d.Epochs}}},
		"received empty":  {Number: 1, Received: []Received{{}}},
	} {
		if _, err := SealKeyring(root, k, until); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	k := Keyring{Number: 1}
	for range 50 {
		k = k.WithDrive(NewDrive("a drive with a name of usual length"))
	}
	for i := range byte(20) {
		k = k.WithDevice(Certify(root, device(i, uint32(i)+1)))
	}
	sealed, err := SealKeyring(root, k, until)
	if err != nil {
		t.Fatalf("50 drives and 20 devices do not fit: %v", err)
	}
	for _, b := range sealed {
		if len(b) > group.MaxSlotRecord {
			t.Errorf("record of %d bytes", len(b))
		}
	}
	for range 100 {
		k = k.WithDrive(NewDrive("one too many"))
	}
	if _, err := SealKeyring(root, k, until); !errors.Is(err, ErrTooLarge) {
		t.Errorf("150 drives: %v", err)
	}
}

func TestSizesAreSteps(t *testing.T) {
	slots := HeadSlots(key(1), DriveID{1}, peer(1), Epoch{Number: 1, Read: key(2)})
	sizes := map[int]bool{}
	for n := 0; n <= MaxValue; n += 61 {
		out, err := SealHead(slots[:1], 1, until, make([]byte, n))
		if err != nil {
			t.Fatal(err)
		}
		sizes[len(out[0])] = true
		h, err := OpenHead(slots, out, 0)
		if err != nil || len(h.Value) != n {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	if len(sizes) != len(sizeSteps) {
		t.Errorf("%d sizes of records, want %d", len(sizes), len(sizeSteps))
	}
	if out, err := SealHead(slots, 1, until, make([]byte, MaxValue)); err != nil || len(out[0]) > group.MaxSlotRecord {
		t.Errorf("the largest value: %v", err)
	}
	if _, err := SealHead(slots, 1, until, make([]byte, MaxValue+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one byte more: %v", err)
	}
}

func TestUnpadIsTheInverseOfPadAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "value")
		p, err := pad(v)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := unpad(p); !ok || !bytes.Equal(got, v) {
			t.Fatal("does not come back")
		}
		at := rapid.IntRange(lengthSize+len(v), len(p)).Draw(t, "at")
		if at < len(p) {
			p[at] = 1
			if _, ok := unpad(p); ok {
				t.Fatal("padding other than zeros is accepted")
			}
		}
	})
	if _, ok := unpad(make([]byte, 2<<10)); ok {
		t.Error("a value padded further than needed is accepted")
	}
}

func TestCertificates(t *testing.T) {
	root := key(1)
	d := device(1, MaxPrefix)
	c := Certify(root, d)
	got, err := c.Device(MemberOf(root))
	if err != nil || got.Key != d.Key || got.Prefix != d.Prefix || got.Name != d.Name || got.Created != d.Created {
		t.Fatalf("%v: %+v", err, got)
	}
	if _, err := c.Device(MemberOf(key(2))); !errors.Is(err, ErrCertificate) {
		t.Errorf("another member's: %v", err)
	}
	for i := range c {
		bad := bytes.Clone(c)
		bad[i] ^= 0x40
		if _, err := Certificate(bad).Device(MemberOf(root)); err == nil {
			t.Fatalf("altered at %d: accepted", i)
		}
	}
	long := d
	long.Name = strings.Repeat("n", 1000)
	if c := Certify(root, long); len(c) > MaxCertificate {
		t.Errorf("certificate of %d bytes", len(c))
	}
	k := sample(root)
	for range 100 {
		if p := k.FreePrefix(); p == 0 || p > MaxPrefix || p == 1 || p == 70_000 {
			t.Fatalf("prefix %d", p)
		}
	}
}

// No two purposes share a key, whatever they descend from: also not where the
// recovery key, the root and a read secret are, by some mistake, the same.
func TestNoKeyServesTwoPurposes(t *testing.T) {
	k := key(7)
	entropy, err := words.FromBytes(k[:])
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	add := func(purpose string, b []byte) {
		if was, ok := found[string(b)]; ok {
			t.Errorf("%s has the key of %s", purpose, was)
		}
		found[string(b)] = purpose
	}
	addSlots := func(purpose string, slots []Slot) {
		for i, s := range slots {
			add(fmt.Sprintf("%s slot %d", purpose, i), s.signer.Seed())
			add(fmt.Sprintf("%s slot %d sealing", purpose, i), s.seal[:])
		}
	}
	rec := entropy.Key()
	add("the source", k[:])
	add("recovery", rec[:])
	add("member", MemberKey(k).Seed())
	addSlots("recovery", RecoverySlots(k))
	addSlots("keyring", KeyringSlots(k))
	for drive := range byte(3) {
		for dev := range byte(3) {
			e := Epoch{Number: 1, Read: k, Convergence: k}
			addSlots(fmt.Sprintf("head of drive %d device %d", drive, dev), HeadSlots(k, DriveID{drive}, peer(dev), e))
		}
		add(fmt.Sprintf("group %d", drive), group.KeyOf(k, [16]byte{drive}).Seed())
	}
	f := localFile{Cost: Cost{Passes: 1, Memory: 8, Lanes: 1}, Salt: make([]byte, 32)}
	local := f.key(k[:])
	add("local key file", local[:])
}

func TestNothingPrintsASecret(t *testing.T) {
	root := key(0xA7)
	k := sample(root)
	slots := HeadSlots(root, k.Drives[0].ID, peer(1), k.Drives[0].Newest())
	local := Local{Device: key(0x41), Root: root}
	values := []any{
		k, &k, k.Drives, k.Drives[0], &k.Drives[0], k.Drives[0].Newest(), k.Received, k.Old,
		Recovery{Root: root}, local, &local, slots, slots[0], &slots[0], RecoverySlots(root), KeyringSlots(root),
		map[string]Drive{"d": k.Drives[0]},
	}
	secrets := []secret.Key{root, local.Device, slots[0].seal, secret.Key(slots[0].signer.Seed()),
		key(0x11), key(0x12), key(0x13), key(0x14), key(0x15), key(0x21), key(0x22), key(0x23), key(0x31)}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%o", "%b", "%c", "%U", "%e", "%t"} {
			out := fmt.Sprintf(verb, v)
			for _, s := range secrets {
				if i := leak(out, s); i != "" {
					t.Fatalf("%s of %T prints a secret as %q", verb, v, i)
				}
			}
		}
	}
}

// leak returns the form in which out shows part of the secret.
func leak(out string, s secret.Key) string {
	part := s[:4]
	for _, form := range []string{
		string(part), fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), fmt.Sprintf("% x", part),
		strings.Trim(fmt.Sprintf("%d", part), "[]"), strings.Trim(fmt.Sprintf("%o", part), "[]"),
		strings.Trim(fmt.Sprintf("%b", part), "[]"), strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}"),
	} {
		if strings.Contains(out, form) {
			return form
		}
	}
	return ""
}
