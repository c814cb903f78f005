package daemon

import (
	"reflect"
	"testing"

	"skep/cmd/skep/home"
	"skep/test/vectors"
)

func TestRecoveryFileVector(t *testing.T) {
	r := recoveryRecords{Recovery: [][]byte{[]byte("a copy"), []byte("another")}, Keyring: []byte("a keyring")}
	h := home.Dir(t.TempDir())
	if err := r.save(h); err != nil {
		t.Fatal(err)
	}
	b, err := h.ReadFile(recoveryFile)
	if err != nil {
		t.Fatal(err)
	}
	vectors.Check(t, "recovery", "two copies of a recovery record and a keyring", b)
	if got, err := loadRecovery(h); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
}
