package keyring

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"skep/chunker/group"
	"skep/chunker/secret"
)

// However many devices come, the keyring has room for the newest ones, and no prefix is
// given twice.
func TestManyDevices(t *testing.T) {
	root := key(1)
	k := Keyring{Number: 1}.WithDrive(NewDrive("drive"))
	given := map[uint32]bool{}
	for i := range 200 {
		key := group.PeerKey(secret.New())
		d := Device{Key: key, Prefix: k.FreePrefix(), Name: "a usual name", Created: k.NextCreated(key, int64(1_800_000_000-i))}
		if given[d.Prefix] {
			t.Fatalf("prefix %d is given again to device %d", d.Prefix, i)
		}
		given[d.Prefix] = true
		k = k.WithDevice(Certify(root, d))
		k.Number++
		if !k.Names(root, d.Key) {
			t.Fatalf("device %d is not named", i)
		}
	}
	if len(k.Devices) != MaxDevices || len(k.Taken) != 200-MaxDevices {
		t.Errorf("%d devices, %d prefixes", len(k.Devices), len(k.Taken))
	}
	mustSeal(t, root, k)
	if again := Merge(k, k); !again.Has(k) || !k.Has(again) {
		t.Error("it is not what it is joined with itself")
	}
}

// Prefixes that were taken are forgotten at length, the smallest first, and none as
// small is given any more.
func TestForgottenPrefixes(t *testing.T) {
	var k Keyring
	for i := range uint32(2 * MaxTaken) {
		k.Taken = joinTaken(k.Taken, []uint32{MaxPrefix/2 + i*2})
	}
	if len(k.Taken) != MaxTaken || k.Taken[0] != MaxPrefix/2+2*MaxTaken {
		t.Fatalf("%d prefixes from %d", len(k.Taken), k.Taken[0])
	}
	for range 1000 {
		if p := k.FreePrefix(); p < k.Taken[0] || slices.Contains(k.Taken, p) {
			t.Fatalf("%d is given", p)
		}
	}
	k.Taken[0] = MaxPrefix // none is larger
	if p := k.FreePrefix(); slices.Contains(k.Taken, p) {
		t.Errorf("%d is given", p)
	}
}

// A device that is certified anew stays, under its prefix, when others come.
func TestCertifiedAnew(t *testing.T) {
	root := key(1)
	k := Keyring{Number: 1}
	for i := range 3 * MaxDevices {
		if k.Full() {
			k = k.Certified(root, peer(1), k.NextCreated(peer(1), 0))
		}
		k = k.WithDevice(Certify(root, Device{Key: group.PeerKey{byte(i + 1), 1}, Prefix: uint32(i + 2), Created: k.NextCreated(group.PeerKey{byte(i + 1), 1}, 0)}))
		if i == 0 {
			k = k.WithDevice(Certify(root, Device{Key: peer(1), Prefix: 1}))
		}
	}
	i := slices.IndexFunc(k.Known(root), func(d Device) bool { return d.Key == peer(1) })
	if i < 0 || k.Known(root)[i].Prefix != 1 || len(k.Devices) != MaxDevices {
		t.Errorf("%d of %d devices", i, len(k.Devices))
	}
	if got := k.Certified(root, peer(200), 5); !reflect.DeepEqual(got, k) {
		t.Error("a device that is not named came in")
	}
}

// Keyrings with more devices than one has room for come to the same one, in whatever
// order they are joined, and whoever has that lacks nothing of any of them.
func TestFullKeyringsJoin(t *testing.T) {
	root := key(1)
	rng := rand.New(rand.NewPCG(1, 2))
	var all []Certificate
	for i := range 2 * MaxDevices {
		all = append(all, Certify(root, Device{Key: group.PeerKey{byte(i)}, Prefix: uint32(i + 1), Created: int64(rng.IntN(20))}))
		if i%3 == 0 { // and anew
			all = append(all, Certify(root, Device{Key: group.PeerKey{byte(i)}, Prefix: uint32(i + 1), Created: int64(rng.IntN(20))}))
		}
	}
	var parts [4]Keyring
	for i := range parts {
		parts[i].Number = 1
		for _, j := range rng.Perm(len(all))[:len(all)/2] {
			parts[i] = parts[i].WithDevice(all[j])
		}
	}
	join := func(order []int) (k Keyring) {
		for _, i := range order {
			k = Merge(k, parts[i])
		}
		return k
	}
	want := join([]int{0, 1, 2, 3})
	for range 10 {
		order := rng.Perm(len(parts))
		if got := join(order); !reflect.DeepEqual(got, want) {
			t.Fatalf("joined in order %v: %d devices, %d prefixes; %d and %d", order, len(got.Devices), len(got.Taken), len(want.Devices), len(want.Taken))
		}
	}
	for i, p := range parts {
		if !want.Has(p) {
			t.Errorf("it lacks something of %d", i)
		}
	}
}

// A device that is certified anew is named by the new certificate, also if its clock was
// set back.
func TestCertifiedAnewByAnEarlierClock(t *testing.T) {
	root := key(1)
	k := Keyring{Number: 1}
	for i, now := range []int64{1_800_000_000, 1_700_000_000, 1_700_000_005} {
		k = k.WithDevice(Certify(root, Device{Key: peer(1), Prefix: 1, Created: k.NextCreated(peer(1), now)}))
		if got := k.Known(root)[0].Created; got != 1_800_000_000+int64(i) {
			t.Errorf("certificate %d is of %d", i, got)
		}
	}
}

// There is room for as many devices as a keyring names, and prefixes as it keeps, with the
// longest names that they may have, beside a dozen drives.
func TestRoomForDevices(t *testing.T) {
	root := key(1)
	k := Keyring{Number: 1}
	for range 12 {
		k = k.WithDrive(NewDrive("a drive"))
	}
	long := strings.Repeat("ä", MaxName)
	for i := range MaxDevices + 1 {
		d := Device{Key: group.PeerKey(secret.New()), Prefix: MaxPrefix - uint32(i), Name: long, Created: 1_800_000_000 + int64(i)}
		k = k.WithDevice(Certify(root, d))
	}
	if name := k.Known(root)[0].Name; name != long[:MaxDeviceName] {
		t.Errorf("a name is %q", name)
	}
	for i := range uint32(MaxTaken) {
		k.Taken = joinTaken(k.Taken, []uint32{1<<20 + i})
	}
	if len(k.Devices) != MaxDevices || len(k.Taken) != MaxTaken {
		t.Fatalf("%d devices, %d prefixes", len(k.Devices), len(k.Taken))
	}
	mustSeal(t, root, k)
}

// A name is cut between letters.
func TestLongNameIsCut(t *testing.T) {
	c := Certify(key(1), Device{Key: peer(1), Prefix: 1, Name: "x" + strings.Repeat("ä", MaxDeviceName)})
	if d, err := c.Device(MemberOf(key(1))); err != nil || d.Name != "x"+strings.Repeat("ä", (MaxDeviceName-1)/2) {
		t.Errorf("%v, %q", err, d.Name)
	}
}
