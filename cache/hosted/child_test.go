package hosted_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skep/cache/hosted"
)

// childEnv makes the test binary a process that lives with a store: its value
// is the directory of the store, the file for the marks and, for each worker,
// the step to begin with.
const childEnv = "SKEP_TEST_HOSTED_CHILD"

func TestMain(m *testing.M) {
	if how := os.Getenv(childEnv); how != "" {
		if err := live(how); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// childPatience is how long a child may take; it is far more than it needs.
const childPatience = 2 * time.Minute

// child prepares a process that lives with a store.
func child(t *testing.T, dir, marks string, from [workers]int, steps int) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), childPatience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d %d %d", childEnv, dir, marks, steps, from[0], from[1], from[2]))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	errs := new(bytes.Buffer)
	cmd.Stderr = errs
	return cmd, errs
}

// live is what the child does: all workers do their steps at the same time, and
// write a mark before and after each.
func live(how string) error {
	var dir, marks string
	var steps int
	var from [workers]int
	if _, err := fmt.Sscan(how, &dir, &marks, &steps, &from[0], &from[1], &from[2]); err != nil {
		return err
	}
	f, err := os.OpenFile(marks, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	store, err := hosted.Open(dir, 256<<20)
	if err != nil {
		return err
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { errs[w] = work(store, f, w, from[w], steps) })
	}
	wg.Wait()
	return errors.Join(append(errs, store.Close())...)
}

func work(store *hosted.Store, marks *os.File, w, from, steps int) error {
	for n := from; n < from+steps; n++ {
		s := step{w, n}
		if err := (mark{"begun", s}).write(marks); err != nil {
			return err
		}
		err := s.do(store)
		if bad := s.expected(err); bad != nil {
			return bad
		}
		if err != nil {
			continue
		}
		if err := (mark{"ended", s}).write(marks); err != nil {
			return err
		}
	}
	return nil
}

// mark says that a step was begun, or has ended well.
type mark struct {
	what string
	step step
}

func (m mark) write(f *os.File) error {
	_, err := fmt.Fprintf(f, "%s %d %d\n", m.what, m.step.worker, m.step.n)
	return err
}

func parseMark(line string) (m mark, ok bool) {
	n, err := fmt.Sscanf(strings.TrimSpace(line), "%s %d %d", &m.what, &m.step.worker, &m.step.n)
	return m, err == nil && n == 3
}

// note takes a mark into what is known.
func (k *knowledge) note(m mark) {
	if m.what == "begun" {
		k.begun(m.step)
	} else {
		k.acknowledged(m.step)
	}
}
