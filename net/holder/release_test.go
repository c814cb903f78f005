package holder_test

import (
	"bytes"
	"errors"
	"testing"

	"skep/chunker/group"
	"skep/net/client"
	"skep/net/wire"
	"skep/test/simnet"
	"skep/test/storetest"
)

// Only a release by the group's key, for this holder, and newer than all that it was
// given, has it delete anything.
func TestRelease(t *testing.T) {
	hold, ask, o := pair(t, simnet.Config{}, func(l *group.Lease) { l.Number = 7 })
	ctx := t.Context()
	p := o.Pack(t, 0)
	if err := put(t, ask, hold, p, 1); err != nil {
		t.Fatal(err)
	}
	there := func() error {
		_, err := ask.Client.Get(ctx, hold.Key, &p.Manifest, 1, 0, 1)
		return err
	}
	other := storetest.NewOwner(2, 18, 2, 3)
	forged := group.Release{Holder: hold.Key, Number: 100, Packs: group.AllPacks}.Sign(other.Key)
	for name, c := range map[string]struct {
		word []byte
		want wire.Status
	}{
		"for somebody else":      {group.Release{Holder: ask.Key, Number: 100, Packs: group.AllPacks}.Sign(o.Key), wire.Refused},
		"of an older lease":      {group.Release{Holder: hold.Key, Number: 6, Packs: group.AllPacks}.Sign(o.Key), wire.Refused},
		"of the lease it has":    {group.Release{Holder: hold.Key, Number: 7, Packs: group.AllPacks}.Sign(o.Key), wire.Refused},
		"of another group":       {forged, wire.Absent},
		"that another key signs": {bytes.Replace(forged, other.ID[:], o.ID[:], 1), wire.Malformed},
	} {
		s := open(t, ask, hold, wire.AppendRequest(nil, &wire.ReleaseRequest{Release: c.word}, 0))
		_, _, err := wire.ReadAnswer(s, wire.KindRelease) // our own client would not send all of these
		if r, ok := errors.AsType[*wire.Refusal](err); !ok || r.Status != c.want {
			t.Errorf("a release %s: %v", name, err)
		}
		if err := there(); err != nil {
			t.Fatalf("after a release %s: %v", name, err)
		}
	}

	// Of what came since the release was made, it says nothing.
	st, err := ask.Client.Release(ctx, hold.Key, group.Release{Holder: hold.Key, Number: 8}.Sign(o.Key))
	if err != nil || st.Held.Count() != 1 || there() != nil {
		t.Errorf("a release that does not name the pack: %+v, %v, %v", st, err, there())
	}
	good := group.Release{Holder: hold.Key, Number: 8, Packs: group.AllPacks}.Sign(o.Key)
	st, err = ask.Client.Release(ctx, hold.Key, good)
	if err != nil || st.Held.Count() != 0 || st.Lease != 7 {
		t.Errorf("release: %+v, %v", st, err)
	}
	if err := there(); !errors.Is(err, client.ErrAbsent) {
		t.Errorf("after the release: %v", err)
	}
	if _, err := ask.Client.Release(ctx, hold.Key, good); err != nil {
		t.Errorf("once more: %v", err)
	}

	// It is given a slot again, another one, and the release means nothing any more.
	_, lease := o.Lease(8, until())
	if _, err := ask.Client.Admit(ctx, hold.Key, lease, 0); err != nil {
		t.Fatal(err)
	}
	if err := put(t, ask, hold, p, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := ask.Client.Release(ctx, hold.Key, good); !errors.Is(err, client.ErrRefused) {
		t.Errorf("an old release: %v", err)
	}
	if _, err := ask.Client.Get(ctx, hold.Key, &p.Manifest, 0, 0, 1); err != nil {
		t.Errorf("after the old release: %v", err)
	}
}
