package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"skep/cmd/skep/control"
)

// procs are the processes of the swarm.
type procs struct {
	c    config
	all  []*exec.Cmd
	boot string
}

func (p *procs) path(elem ...string) string {
	return filepath.Join(append([]string{p.c.dir}, elem...)...)
}

// peer starts a storage peer.
func (p *procs) peer(i int) error {
	argv := []string{"peer", "--home", p.peerHome(i), "--offer", "20G", "--listen", "/ip4/127.0.0.1/tcp/0"}
	if p.boot != "" {
		argv = append(argv, "--bootstrap", p.boot)
	}
	cmd := exec.Command(p.c.skep, argv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.all = append(p.all, cmd)
	s := bufio.NewScanner(out)
	if !s.Scan() {
		return fmt.Errorf("peer %d did not start", i)
	}
	if p.boot == "" {
		p.boot = s.Text()
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return nil
}

func (p *procs) peerHome(i int) string { return p.path(fmt.Sprint("peer", i)) }

// skep runs a command on a home.
func (p *procs) skep(ctx context.Context, home string, argv ...string) error {
	argv = append([]string{argv[0], "--home", p.path(home)}, argv[1:]...)
	out, err := exec.CommandContext(ctx, p.c.skep, argv...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("skep %s: %s", argv[0], strings.TrimSpace(string(out)))
	}
	return nil
}

func (p *procs) status(ctx context.Context, home string) (control.Status, error) {
	var s control.Status
	out, err := exec.CommandContext(ctx, p.c.skep, "status", "--json", "--home", p.path(home)).Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	return s, err
}

// waitForPeers returns when the daemon of a home has met the whole swarm.
func (p *procs) waitForPeers(ctx context.Context, home string) error {
	for {
		s, err := p.status(ctx, home)
		if err != nil {
			return err
		}
		if len(s.Peers) >= p.c.peers {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *procs) end() {
	for _, home := range []string{"home", "again"} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_ = p.skep(ctx, home, "down")
		cancel()
	}
	for _, c := range p.all {
		_ = c.Process.Signal(syscall.SIGTERM)
	}
	for _, c := range p.all {
		_ = c.Wait()
	}
}

// peak is the most memory that a process has had, in MiB.
func peak(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(v)[0])
			return kib >> 10
		}
	}
	return 0
}

func (p *procs) largestPeer() (most int) {
	for _, c := range p.all {
		most = max(most, peak(c.Process.Pid))
	}
	return most
}

// daemonOf finds the process that serves a home.
func (p *procs) daemonOf(home string) int {
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, d := range dirs {
		b, _ := os.ReadFile(d)
		if strings.Contains(string(b), "daemon\x00--home\x00"+p.path(home)+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(d)))
			return pid
		}
	}
	return 0
}

// processorTime is how long a process has used processors, in seconds, for
// itself and in the kernel.
func processorTime(pid int) float64 {
	const perSecond = 100 // USER_HZ, the same on all of Linux
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(string(fields[11]))
	system, _ := strconv.Atoi(string(fields[12]))
	return float64(user+system) / perSecond
}

// cost is what something took: time, and processor time of the daemon and of
// all peers, in seconds. Unlike the time, processor time hardly depends on what
// else this machine does.
type cost struct {
	time, daemon, peers float64
	why                 []string // what that went to, if it was asked
}

// timed runs fn, during which the daemon of a home works.
func (p *procs) timed(home string, fn func() error) (c cost, err error) {
	daemon := p.daemonOf(home)
	spent := func() (c cost) {
		c.daemon = processorTime(daemon)
		for _, cmd := range p.all {
			c.peers += processorTime(cmd.Process.Pid)
		}
		return c
	}
	explain, err := p.explain(home)
	if err != nil {
		return c, err
	}
	before := spent()
	took, err := timed(fn)
	after := spent()
	c = cost{time: took, daemon: after.daemon - before.daemon, peers: after.peers - before.peers}
	why, xerr := explain()
	c.why = why
	return c, errors.Join(err, xerr)
}

// explain takes profiles, if that is asked, until the function is called which it
// returns. That tells what daemon and peers spent their time on.
func (p *procs) explain(home string) (func() ([]string, error), error) {
	if !p.c.why {
		return func() ([]string, error) { return nil, nil }, nil
	}
	var peers []string
	for i := range p.all {
		peers = append(peers, p.peerHome(i))
	}
	ofDaemon, err := profile(p.path(home))
	if err != nil {
		return nil, err
	}
	ofPeers, err := profile(peers...)
	if err != nil {
		return nil, err
	}
	return func() ([]string, error) {
		daemon, err := ofDaemon.shares(context.Background())
		peers, perr := ofPeers.shares(context.Background())
		return []string{"daemon: " + daemon, "peers: " + peers}, errors.Join(err, perr)
	}, nil
}

// spent prints what each GiB of so many bytes took of the processors, and what
// for.
func (r *report) spent(c cost, bytes int64) {
	gib := float64(bytes) / (1 << 30)
	r.line("", "%.1f s of daemon, %.1f s of peers a GiB", c.daemon/gib, c.peers/gib)
	for _, w := range c.why {
		r.line("", "%s", w)
	}
}

func timed(fn func() error) (float64, error) {
	begin := time.Now()
	err := fn()
	return time.Since(begin).Seconds(), err
}

func command(ctx context.Context, argv ...string) error {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %.300s", argv[0], err, out)
	}
	return nil
}
