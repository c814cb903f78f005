package blockdev

import (
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// env tells a process, in the environment, to serve the file of a device.
const env = "SKEP_TEST_BLOCKDEV"

// process serves the file of a device. It is none of those that use what lies on the
// device: their threads cannot end while they wait for the disk, and so could not close
// what answers for it either.
type process struct {
	pid   int
	calls *rpc.Client
	ended chan struct{}
}

// start starts the process. It is told when this one dies, even if a thread of this
// one waits for the disk: what the kernel looks at is the thread that started it,
// which does nothing else.
func start() (*process, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), env+"=1")
	cmd.Stderr = os.Stderr
	// Of its own group, what ends a test by a signal to all leaves it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return &process{cmd.Process.Pid, rpc.NewClient(pipes{out, in}), ended}, nil
}

// pipes are one connection.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// call has the process do something. It does not end by itself.
func (p *process) call(name string, in, out any) {
	if err := p.calls.Call("disk."+name, in, out); err != nil {
		panic(fmt.Sprintf("block device: %s: %v", name, err))
	}
}

// end ends the process, and returns when it has ended.
func (p *process) end() {
	_ = p.calls.Call("disk.End", struct{}{}, nil)
	_ = p.calls.Close()
	<-p.ended
}

// Main is for the beginning of TestMain: it does not return in a process that was
// started to serve a device.
func Main() {
	if os.Getenv(env) == "" {
		return
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGTERM)
	parent := os.Getppid()
	d := &disk{}
	gone := make(chan struct{})
	go func() {
		s := rpc.NewServer()
		if err := s.RegisterName("disk", d); err != nil {
			panic(fmt.Sprintf("BUG: blockdev: %v", err))
		}
		s.ServeConn(pipes{os.Stdin, os.Stdout})
		close(gone)
	}()
	select {
	case <-told:
	case <-gone:
	}
	d.abandoned(parent)
	os.Exit(0)
}

// abandoned takes away the device of a test that died, and all that is mounted beside
// its directory. First whoever waits for the disk is let go.
func (d *disk) abandoned(parent int) {
	dir := d.dir.Load()
	if dir == nil {
		return
	}
	_ = unix.Unmount(*dir, unix.MNT_FORCE) // busy, and yet it ends all requests
	for end := time.Now().Add(time.Minute); os.Getppid() == parent && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if all, err := mounts(); err == nil {
		takeAway(all, *dir)
	}
}
