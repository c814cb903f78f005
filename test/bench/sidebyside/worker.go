package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"skep/test/posix/ordinary"
)

// job says on which system a worker works, and with what.
type job struct {
	System    string
	Base      string // an empty directory for all that it needs
	Skep      string
	Quick     bool
	Tree, Tar string
}

// task is one workload of one round, or cleanUp.
type task struct{ Workload, Round int }

// cleanUp takes away what a round has left.
const cleanUp = -1

// result is what a task came to.
type result struct {
	Count        float64
	Elapsed, CPU time.Duration
	Err          string
}

// work starts a system and does tasks until there are none.
func work(conf string) error {
	var j job
	if err := json.Unmarshal([]byte(conf), &j); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	b, cmd, err := j.start()
	if err != nil {
		return out.Encode(result{Err: err.Error()})
	}
	defer stop(cmd, b.drive)
	if err := out.Encode(result{}); err != nil {
		return err
	}
	for in := json.NewDecoder(os.Stdin); ; {
		var t task
		if err := in.Decode(&t); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := out.Encode(j.perform(t, b, cmd)); err != nil {
			return err
		}
	}
}

// start sets the system up; what serves it is nil for the bare directory.
func (j *job) start() (*bed, *exec.Cmd, error) {
	var s system
	for _, other := range systems {
		if other.name == j.System {
			s = other
		}
	}
	if s.ordinary {
		if err := ordinary.Become(j.Base); err != nil {
			return nil, nil, fmt.Errorf("becoming an ordinary user: %w", err)
		}
	}
	b := &bed{base: j.Base, drive: filepath.Join(j.Base, "drive"), skep: j.Skep}
	if err := os.Mkdir(b.drive, 0o755); err != nil {
		return nil, nil, err
	}
	cmd, err := s.start(b)
	return b, cmd, err
}

func (j *job) perform(t task, b *bed, cmd *exec.Cmd) result {
	p := &place{ctx: context.Background(), dir: filepath.Join(b.drive, fmt.Sprint("round-", t.Round)), scale: whole, tree: j.Tree, tar: j.Tar}
	if j.Quick {
		p.scale = quick
	}
	if t.Workload == cleanUp {
		return failed(os.RemoveAll(p.dir))
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return failed(err)
	}
	w := &watch{}
	if cmd != nil {
		w.server = cmd.Process.Pid
	}
	settle(j.Base)
	n, err := workloads[t.Workload].do(p, w)
	if err != nil {
		return failed(err)
	}
	return result{Count: n, Elapsed: w.elapsed, CPU: w.cpu}
}

func failed(err error) result {
	if err == nil {
		return result{}
	}
	return result{Err: err.Error()}
}

// settle has the disk write what the one before has left to it.
func settle(dir string) {
	if fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Syncfs(fd)
		_ = unix.Close(fd)
	}
}
