package home

import (
	"fmt"
	"os"
	"testing"
)

// FuzzSettings reads any bytes as settings: what can be read, reads the same
// after it was written again.
func FuzzSettings(f *testing.F) {
	f.Add([]byte(`{"version":1,"offer":1000,"dead_after":"72h","listen":["/ip4/0.0.0.0/udp/0/quic-v1"]}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"dead_after":"-1ns","prefix":4294967295}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := Dir(t.TempDir())
		if err := os.WriteFile(d.Path("settings.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := d.Settings()
		if err != nil {
			return
		}
		if err := d.SaveSettings(s); err != nil {
			t.Fatal(err)
		}
		again, err := d.Settings()
		if fmt.Sprint(again) != fmt.Sprint(s) || err != nil {
			t.Errorf("%+v reads as %+v, %v", s, again, err)
		}
	})
}
