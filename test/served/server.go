package served

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"skep/fs/mount"
)

// Server is a process that serves a drive.
type Server struct {
	conf Config
	cmd  *exec.Cmd

	mu  sync.Mutex // guards the next two: one command at a time
	in  io.WriteCloser
	out *bufio.Reader
}

// Start starts a server and waits until its drive is mounted. It dies with the
// test.
func Start(c Config) (*Server, error) {
	conf, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	s := &Server{conf: c, cmd: exec.Command("/proc/self/exe")}
	s.cmd.Env = append(os.Environ(), env+"="+string(conf))
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		s.in, err = s.cmd.StdinPipe()
	}
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if line, _ := s.out.ReadString('\n'); line != ready+"\n" {
		rest, _ := io.ReadAll(s.out)
		s.Kill()
		return nil, fmt.Errorf("server: %s%s", line, rest)
	}
	return s, nil
}

// Command has the server do something, and waits for its answer.
func (s *Server) Command(line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := fmt.Fprintln(s.in, line); err != nil {
		return err
	}
	answer, err := s.out.ReadString('\n')
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "" {
		return errors.New(answer)
	}
	return nil
}

// Kill ends the server as a crash would; the mount is dead afterwards.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	s.gone()
}

// gone waits for the end of a server that was killed, and takes it down.
func (s *Server) gone() {
	_ = s.cmd.Wait()
	_ = s.in.Close()
}

// Wait waits until the server, whose drive is being unmounted, has ended in
// order.
func (s *Server) Wait() error {
	said, _ := io.ReadAll(s.out)
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("server: %w: %s", err, said)
	}
	return nil
}

// End takes away whatever is left, mount and process.
func (s *Server) End() {
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		_ = s.Wait()
	}
	_ = mount.ForceUnmount(s.conf.Dir)
}

// Shoot kills the server; it may be called while others use it.
func (s *Server) Shoot() { _ = s.cmd.Process.Kill() }
