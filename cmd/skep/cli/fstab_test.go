package cli

import (
	"slices"
	"testing"
)

func TestHelperCommand(t *testing.T) {
	for _, tt := range []struct{ argv, want []string }{
		{[]string{"/opt/bin/skep", "status"}, []string{"status"}},
		{[]string{"/sbin/mount.fuse.skep", "/var/lib/skep", "/mnt", "-o", "rw,nofail,_netdev"},
			[]string{"mount", "/mnt", "--source", "/var/lib/skep", "--home", "/var/lib/skep", "-o", "rw,nofail,_netdev"}},
		{[]string{"mount.fuse.skep", "skep", "/mnt", "-sv", "-t", "fuse.skep"}, []string{"mount", "/mnt", "--source", "skep"}},
		{[]string{"mount.fuse.skep", "/h", "/mnt", "-o", "passphrase-file=/etc/pw,ro", "-o", "bootstrap=/ip4/1.2.3.4/tcp/1/p2p/x"},
			[]string{"mount", "/mnt", "--source", "/h", "--home", "/h", "--passphrase-file", "/etc/pw", "--bootstrap", "/ip4/1.2.3.4/tcp/1/p2p/x", "-o", "ro"}},
		{[]string{"mount.fuse.skep", "/h", "/mnt", "-o", "rw,allow_suid,allow_dev,allow_other"},
			[]string{"mount", "/mnt", "--source", "/h", "--home", "/h", "-o", "rw,suid,dev,allow_other"}},
		{[]string{"mount.fuse.skep", "/h", "/mnt", "-s", "-n", "-o", "ro,whatever,uid=7,gibberish=1"},
			[]string{"mount", "/mnt", "--source", "/h", "--home", "/h", "-o", "ro,uid=7"}},
		{[]string{"mount.fuse.skep", "/h", "/mnt", "-oro,whatever"}, []string{"mount", "/mnt", "--source", "/h", "--home", "/h", "-o", "ro,whatever"}},
		{[]string{"mount.fuse.skep", "/h", "/mnt", "-s", "-o", "remount,ro,user_id=0,what"},
			[]string{"mount", "/mnt", "--source", "/h", "--home", "/h", "-o", "remount,ro,user_id=0"}},
		{[]string{"mount.fuse.skep", "/h", "/mnt", "-s", "-o", "what"}, []string{"mount", "/mnt", "--source", "/h", "--home", "/h"}},
		{[]string{"mount.fuse.skep", "-f", "/h", "/mnt"}, nil},
		{[]string{"mount.fuse.skep", "/h", "/mnt", "-vf", "-o", "ro,bootstrap=/ip4/1.2.3.4/tcp/1/p2p/x"}, nil},
		{[]string{"mount.fuse.skep", "/h", "/mnt", "-sf", "-o", "what"}, nil},
	} {
		if got, err := command(tt.argv); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%q: %q, %v", tt.argv, got, err)
		}
	}
	for _, argv := range [][]string{{"mount.fuse.skep", "/h"}, {"mount.fuse.skep", "/h", "/mnt", "-o"}, {"mount.fuse.skep", "a", "b", "c"},
		{"mount.fuse.skep", "/h", "-f"}, {"mount.fuse.skep", "/h", "/mnt", "-f", "-o", "what"}, {"mount.fuse.skep", "/h", "/mnt", "-r"},
		{"mount.fuse.skep", "/h", "/mnt", "-N", "/proc/7/ns/mnt"}} {
		if got, err := command(argv); err == nil {
			t.Errorf("%q: %q", argv, got)
		}
	}
}
