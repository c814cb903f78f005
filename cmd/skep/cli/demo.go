package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/say"
	"skep/fs/mount"
)

func (a *app) demoCommand() *cobra.Command {
	var n int
	var deadAfter time.Duration
	cmd := &cobra.Command{
		Use:   "demo [DIR]",
		Short: "A swarm on this computer, with a drive on it, to try",
		Long: `Starts a small swarm of real peer processes on this computer, makes a new drive on
it and mounts it at DIR (./drive unless told otherwise), until Ctrl-C. Then
everything is taken away again: the demo leaves nothing behind.`,
		Example: `  skep demo
  skep demo --peers 12 /mnt/try`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, argv []string) error {
			dir := "drive"
			if len(argv) == 1 {
				dir = argv[0]
			}
			dir, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			return a.runDemo(cmd.Context(), dir, n, deadAfter)
		},
	}
	cmd.Flags().IntVar(&n, "peers", 9, "how many peers the swarm has")
	cmd.Flags().DurationVar(&deadAfter, "dead-after", 30*time.Second, "after how long of silence a peer counts as gone")
	return cmd
}

// demo is a swarm of processes of our own, in a directory of its own.
type demo struct {
	a     *app
	exe   string
	dir   string
	mount string
	made  []string   // directories that are ours to remove: the mountpoint, and those above it
	procs []*process // of the peers, then that of the drive
	ids   []string   // of the peers
}

func (d *demo) home() string { return filepath.Join(d.dir, "home") }

// process is one of the demo's.
type process struct {
	*exec.Cmd
	ended chan struct{} // closed when it is over
}

// begin starts a process and waits for its end in the background.
func (d *demo) begin(cmd *exec.Cmd) (*process, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, make(chan struct{})}
	d.procs = append(d.procs, p)
	go func() {
		defer close(p.ended)
		_ = cmd.Wait()
	}()
	return p, nil
}

func (a *app) runDemo(ctx context.Context, mountpoint string, n int, deadAfter time.Duration) (err error) {
	if n < 1 || n > 64 {
		return usageError{fmt.Errorf("--peers %d: between 1 and 64", n)}
	}
	if deadAfter < time.Second {
		return usageError{fmt.Errorf("--dead-after %v: at least a second", deadAfter)}
	}
	d := &demo{a: a, mount: mountpoint}
	if d.exe, err = os.Executable(); err != nil {
		return err
	}
	if err := clearDemos(); err != nil {
		return err
	}
	var release func()
	if d.dir, release, err = demoDir(); err != nil {
		return err
	}
	defer release()
	defer func() { err = errors.Join(err, d.clean()) }()
	if err := d.start(ctx, n, deadAfter); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	d.explain(n)
	d.untilEnd(ctx)
	return nil
}

// untilEnd waits for the end of the demo. When peers hold something it says which one
// to take away.
func (d *demo) untilEnd(ctx context.Context) {
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			fmt.Fprintln(d.a.out, "\nTaking everything away …")
			return
		case <-d.procs[len(d.procs)-1].ended:
			fmt.Fprintln(d.a.out, "The drive was unmounted; taking everything away …")
			return
		case <-look.C:
		}
		if pid := d.mostHeld(ctx); pid != 0 {
			look.Stop()
			fmt.Fprintf(d.a.out, "The peers hold something now. Take one of them away, and see in status how it heals:\n\n  kill %d\n\n", pid)
		}
	}
}

// mostHeld is the process of the peer that holds most of the drive; 0 while none does.
func (d *demo) mostHeld(ctx context.Context) (pid int) {
	var s control.Status
	if control.NewClient(filepath.Join(d.home(), "control.sock")).Call(ctx, "/v1/status", struct{}{}, &s) != nil {
		return 0
	}
	most := 0
	for _, p := range s.Peers {
		if at := slices.Index(d.ids, p.ID); at >= 0 && p.Shards > most {
			pid, most = d.procs[at].Process.Pid, p.Shards
		}
	}
	return pid
}

// point makes the mountpoint, or checks the one that is there.
func (d *demo) point() error {
	if _, err := os.Stat(d.mount); !errors.Is(err, os.ErrNotExist) {
		err := mount.Check(d.mount, mount.Options{})
		if errors.Is(err, mount.ErrNotEmpty) {
			err = fmt.Errorf("%s: %w; choose an empty directory, or one that is not there yet", d.mount, mount.ErrNotEmpty)
		}
		return err
	}
	for dir := d.mount; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
		d.made = append(d.made, dir)
	}
	return os.MkdirAll(d.mount, 0o755)
}

func (d *demo) start(ctx context.Context, n int, deadAfter time.Duration) error {
	if err := d.point(); err != nil {
		return err
	}
	fmt.Fprintf(d.a.out, "Starting %s …\n", say.Count(n, "peer"))
	var bootstrap string
	g := d.a.gauge()
	defer g.end()
	for i := range n {
		g.show(meter{what: "starting peers", done: int64(i), of: int64(n)})
		addr, err := d.startPeer(ctx, i, bootstrap, deadAfter)
		if err != nil {
			return err
		}
		if i == 0 {
			bootstrap = addr
		}
		d.ids = append(d.ids, addr[strings.LastIndexByte(addr, '/')+1:])
	}
	g.show(meter{what: "starting peers", done: int64(n), of: int64(n)})
	g.end()
	home := d.home()
	words := filepath.Join(d.dir, "words.txt")
	err := d.run(ctx, "init", "--home", home, "--words-file", words, "--bootstrap", bootstrap, "--offer", "0",
		"--listen", "/ip4/127.0.0.1/tcp/0", "--dead-after", deadAfter.String())
	if err != nil {
		return err
	}
	return d.startDaemon(ctx, home)
}

// startPeer starts one storage peer and returns the address it prints.
func (d *demo) startPeer(ctx context.Context, i int, bootstrap string, deadAfter time.Duration) (string, error) {
	argv := []string{"peer", "--home", filepath.Join(d.dir, fmt.Sprintf("peer%d", i)), "--offer", "2G",
		"--listen", "/ip4/127.0.0.1/tcp/0", "--dead-after", deadAfter.String()}
	if bootstrap != "" {
		argv = append(argv, "--bootstrap", bootstrap)
	}
	cmd, err := d.spawn(argv, fmt.Sprintf("peer%d.log", i))
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	p, err := d.begin(cmd)
	if err != nil {
		return "", err
	}
	line := make(chan string, 1)
	go func() {
		s := bufio.NewScanner(out)
		if s.Scan() {
			line <- s.Text()
		}
		close(line)
		for s.Scan() { // keep the pipe from filling
		}
	}()
	select {
	case addr, ok := <-line:
		if !ok {
			return "", fmt.Errorf("peer %d did not start: %s", i, lastLine(filepath.Join(d.dir, fmt.Sprintf("peer%d.log", i))))
		}
		return addr, nil
	case <-p.ended:
		return "", fmt.Errorf("peer %d did not start: %s", i, lastLine(filepath.Join(d.dir, fmt.Sprintf("peer%d.log", i))))
	case <-time.After(20 * time.Second):
		return "", fmt.Errorf("peer %d did not start in time", i)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// startDaemon starts the drive's daemon in the foreground of a process of its
// own, and waits until the drive is mounted.
func (d *demo) startDaemon(ctx context.Context, home string) error {
	cmd, err := d.spawn([]string{"mount", "--home", home, "--foreground", d.mount}, "daemon.log")
	if err != nil {
		return err
	}
	p, err := d.begin(cmd)
	if err != nil {
		return err
	}
	c := control.NewClient(filepath.Join(home, "control.sock"))
	deadline := time.Now().Add(30 * time.Second)
	for {
		var s control.Status
		if err := c.Call(ctx, "/v1/status", struct{}{}, &s); err == nil && len(s.Mounts) > 0 && len(s.Peers) > 0 {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-p.ended:
			deadline = time.Time{}
		case <-ctx.Done():
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the drive was not mounted: %s", lastLine(filepath.Join(d.dir, "daemon.log")))
		}
	}
}

// spawn prepares a process of ours in a process group of its own, so that
// Ctrl-C reaches the demo alone, which then ends the others in order.
func (d *demo) spawn(argv []string, log string) (*exec.Cmd, error) {
	f, err := os.OpenFile(filepath.Join(d.dir, log), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(d.exe, argv...)
	cmd.Stderr = f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	return cmd, nil
}

func (d *demo) run(ctx context.Context, argv ...string) error {
	out, err := exec.CommandContext(ctx, d.exe, argv...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("skep %s: %s", argv[0], strings.TrimPrefix(strings.TrimSpace(string(out)), "skep: "))
	}
	return nil
}

func (d *demo) explain(n int) {
	fmt.Fprintf(d.a.out, "\nThe drive is mounted at %s, on a swarm of %s on this computer.\n\nTry, in another terminal:\n\n",
		d.mount, say.Count(n, "peer"))
	exe := mount.Quote(d.exe)
	lines := [][2]string{
		{"cp -a /etc/hosts " + mount.Quote(d.mount) + "/", "copy something into it"},
		{"export SKEP_HOME=" + mount.Quote(d.home()), "for what follows"},
		{exe + " sync", "wait until it is safely out"},
		{exe + " status", "see what is where, and who holds it"},
	}
	w := tabwriter.NewWriter(d.a.out, 0, 0, 3, ' ', 0)
	for _, l := range lines {
		fmt.Fprintf(w, "  %s\t%s\n", l[0], l[1])
	}
	_ = w.Flush() // what cannot be written is told at the end
	fmt.Fprintf(d.a.out, "\nThe recovery words are in %s.\nCtrl-C ends the demo and takes everything away.\n\n",
		filepath.Join(d.dir, "words.txt"))
}

// clean ends the processes, the drive's first, and removes what the demo made.
func (d *demo) clean() error {
	for i := len(d.procs) - 1; i >= 0; i-- {
		p := d.procs[i]
		_ = p.Process.Signal(syscall.SIGTERM)
		if i == len(d.procs)-1 {
			waitFor(p, 15*time.Second)
		}
	}
	for _, p := range d.procs {
		waitFor(p, 10*time.Second)
	}
	for _, dir := range d.made {
		_ = os.Remove(dir) // only if it is empty
	}
	return os.RemoveAll(d.dir)
}

// waitFor waits for a process to end, and ends it if it does not.
func waitFor(p *process, limit time.Duration) {
	select {
	case <-p.ended:
	case <-time.After(limit):
		_ = p.Process.Kill()
		<-p.ended
	}
}
