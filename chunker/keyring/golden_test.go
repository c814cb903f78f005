package keyring

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"skep/chunker/words"
)

// The files under testdata were written once and are read for ever: keys must
// derive, and records open, as they did then.
var writeGolden = flag.Bool("write-golden", false, "write golden files that are not there yet")

// golden is the whole path from words to a head, each step pinned.
type golden struct {
	Phrase       string   `json:"phrase"`
	RecoverySlot []string `json:"recovery_slots"`
	Recovery     []string `json:"recovery_records"`
	Member       string   `json:"member"`
	KeyringSlot  []string `json:"keyring_slots"`
	Plain        string   `json:"keyring_plain"`
	Keyring      []string `json:"keyring_records"`
	HeadSlot     []string `json:"head_slots"`
	Head         []string `json:"head_records"`
	HeadValue    string   `json:"head_value"`
	Local        string   `json:"local_in_clear"`
	LocalSealed  string   `json:"local_sealed"`
	Passphrase   string   `json:"passphrase"`
}

const goldenPhrase = "legal winner thank year wave sausage worth useful legal winner thank yellow"

func hexAll(bs [][]byte) (out []string) {
	for _, b := range bs {
		out = append(out, hex.EncodeToString(b))
	}
	return out
}

func unhexAll(t *testing.T, ss []string) (out [][]byte) {
	t.Helper()
	for _, s := range ss {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func slotKeys(slots []Slot) (out []string) {
	for _, s := range slots {
		k := s.Key()
		out = append(out, hex.EncodeToString(k[:]))
	}
	return out
}

// made is the golden of today's code; its sealed parts are new each time.
func made(t *testing.T) golden {
	t.Helper()
	e, err := words.Parse(goldenPhrase)
	if err != nil {
		t.Fatal(err)
	}
	root, member := key(0x77), MemberOf(key(0x77))
	k := sample(root)
	plain, err := k.encode()
	if err != nil {
		t.Fatal(err)
	}
	heads := HeadSlots(root, k.Drives[0].ID, peer(1), k.Drives[0].Newest())
	g := golden{
		Phrase: goldenPhrase, Member: hex.EncodeToString(member[:]), Plain: hex.EncodeToString(plain),
		RecoverySlot: slotKeys(RecoverySlots(e.Key())), KeyringSlot: slotKeys(KeyringSlots(root)),
		HeadSlot: slotKeys(heads), HeadValue: "a head's value", Passphrase: "open sesame",
	}
	must := func(bs [][]byte, err error) []string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return hexAll(bs)
	}
	g.Recovery = must(SealRecovery(e.Key(), Recovery{Root: root, Created: 1_800_000_000}, 1, until))
	g.Keyring = must(SealKeyring(root, k, until))
	g.Head = must(SealHead(heads, 42, until, []byte(g.HeadValue)))
	local := Local{Device: key(0x41), Root: root}
	clear, err := EncodeLocal(local, nil, Cost{})
	g.Local = must([][]byte{clear}, err)[0]
	sealed, err := EncodeLocal(local, []byte(g.Passphrase), cheap)
	g.LocalSealed = must([][]byte{sealed}, err)[0]
	return g
}

func TestGolden(t *testing.T) {
	now := made(t)
	name := filepath.Join("testdata", "v1.json")
	if *writeGolden {
		b, err := json.MarshalIndent(now, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Write(append(b, '\n')); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	checkDerived(t, g, now)
	checkOpens(t, g)
}

// checkDerived compares all that is a function of fixed inputs.
func checkDerived(t *testing.T, want, got golden) {
	t.Helper()
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"recovery slots", got.RecoverySlot, want.RecoverySlot},
		{"member", got.Member, want.Member},
		{"keyring slots", got.KeyringSlot, want.KeyringSlot},
		{"keyring in clear", got.Plain, want.Plain},
		{"head slots", got.HeadSlot, want.HeadSlot},
		{"local key file", got.Local, want.Local},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
}

// checkOpens goes from the words to the head, as a bare machine does.
func checkOpens(t *testing.T, g golden) {
	t.Helper()
	e, err := words.Parse(g.Phrase)
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := OpenRecovery(e.Key(), unhexAll(t, g.Recovery))
	if err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeyring(r.Root, unhexAll(t, g.Keyring), 0)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(k, sample(r.Root)) {
		t.Errorf("the keyring differs: %+v", k)
	}
	devices := k.Known(r.Root)
	if len(devices) != 2 {
		t.Fatalf("%d devices", len(devices))
	}
	d := k.Drives[0]
	h, err := OpenHead(HeadSlots(r.Root, d.ID, devices[0].Key, d.Newest()), unhexAll(t, g.Head), 0)
	if err != nil || h.Number != 42 || string(h.Value) != g.HeadValue {
		t.Errorf("head: %v, %+v", err, h)
	}
	for _, file := range unhexAll(t, []string{g.Local, g.LocalSealed}) {
		l, err := DecodeLocal(file, []byte(g.Passphrase))
		if err != nil || l != (Local{Device: key(0x41), Root: r.Root}) {
			t.Errorf("local key file: %v", err)
		}
	}
}

func FuzzDecodeKeyring(f *testing.F) {
	plain, err := sample(key(1)).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := decodeKeyring(b)
		if err != nil {
			return
		}
		again, err := k.encode()
		if err != nil || string(again) != string(b) {
			t.Fatalf("two encodings of one keyring: %v", err)
		}
		k.Known(key(1))
		k.FreePrefix()
		if _, err := Merge(k, k).encode(); err != nil {
			t.Fatalf("merged with itself it is invalid: %v", err)
		}
	})
}

func FuzzCertificate(f *testing.F) {
	root := key(1)
	c := Certify(root, device(1, 1))
	f.Add([]byte(c))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Certificate(b).Device(MemberOf(root))
		if err == nil && (d.Key != peer(1) || d.Prefix != 1) {
			t.Fatalf("forged: %+v", d)
		}
	})
}

func FuzzOpen(f *testing.F) {
	root := key(1)
	k := sample(root)
	sealed, err := SealKeyring(root, k, until)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed[0], uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, seen uint64) {
		got, err := OpenKeyring(root, [][]byte{b}, seen)
		if err == nil && (got.Number != k.Number || seen > k.Number) {
			t.Fatalf("forged: %+v", got)
		}
	})
}
