package main

import (
	"strings"
	"testing"
	"time"
)

const traces = `File: skep
Type: cpu
Duration: 1.01s, Total samples = 160ms (15.91%)
-----------+-------------------------------------------------------
      10ms   internal/runtime/syscall/linux.Syscall6
             syscall.RawSyscall6
             skep/fs/loop.(*device).write (inline)
             skep/fs/loop.(*worker).run
-----------+-------------------------------------------------------
      30ms   internal/runtime/syscall/linux.Syscall6
             syscall.write
             internal/poll.(*FD).Write
             net.(*netFD).Write
             crypto/tls.(*Conn).Write
-----------+-------------------------------------------------------
      20ms   internal/runtime/syscall/linux.Syscall6
             syscall.pwrite
             internal/poll.(*FD).Pwrite
             os.(*File).WriteAt
-----------+-------------------------------------------------------
      20ms   crypto/internal/fips140/aes/gcm.gcmAesDec
             crypto/internal/fips140/aes/gcm.open
             crypto/tls.(*halfConn).decrypt
-----------+-------------------------------------------------------
      10ms   runtime.memmove
             crypto/tls.(*Conn).Read
-----------+-------------------------------------------------------
       1.2s  runtime.memclrNoHeapPointers
             runtime.mallocgcLarge
             runtime.mallocgc
-----------+-------------------------------------------------------
      10ms   runtime.futex
             runtime.futexsleep
             runtime.findRunnable
             runtime.schedule
-----------+-------------------------------------------------------
      10ms   skep/net/swarm.cut
`

func TestKindsOfWork(t *testing.T) {
	got, err := byKind(strings.NewReader(traces))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]time.Duration{"kernel: the mount": 10 * time.Millisecond, "kernel: network": 30 * time.Millisecond,
		"kernel: files": 20 * time.Millisecond, "cipher": 20 * time.Millisecond, "copying in memory": 10 * time.Millisecond,
		"allocating and clearing memory": 1200 * time.Millisecond, "scheduling": 10 * time.Millisecond, "the rest": 10 * time.Millisecond}
	for k := range want {
		if got[k] != want[k] {
			t.Errorf("%s: %v, want %v", k, got[k], want[k])
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	if s := inWords(map[string]time.Duration{"a": 1, "b": 199, "c": 0, profiles: 1000}); s != "b 100 %" {
		t.Error(s)
	}
}
