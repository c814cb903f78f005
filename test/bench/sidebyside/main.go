package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// config is what is measured, and how.
type config struct {
	skep    string // the binary
	tree    string // the tree of many files
	rounds  int
	quick   bool
	only    *regexp.Regexp // names of workloads
	systems []string       // names; none: all
}

func main() {
	if err := do(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sidebyside:", err)
		os.Exit(1)
	}
}

func do(args []string) error {
	var c config
	var kind, job, only, list string
	f := flag.NewFlagSet("sidebyside", flag.ExitOnError)
	f.StringVar(&c.skep, "skep", "bin/skep", "the binary to measure")
	f.StringVar(&c.tree, "tree", "", "directory of many files (default: Go's source)")
	f.IntVar(&c.rounds, "rounds", 5, "how often each line is measured; whole trees, three times at most")
	f.BoolVar(&c.quick, "quick", false, "less of everything, in a minute or two")
	f.StringVar(&only, "only", "", "only the lines that this regular expression matches")
	f.StringVar(&list, "systems", "", "only these columns, separated by commas")
	f.StringVar(&kind, "serve", "", "serve a filesystem (what the program does for itself)")
	f.StringVar(&job, "worker", "", "do workloads (what the program does for itself)")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch {
	case kind != "":
		return serve(kind, f.Arg(0), f.Arg(1))
	case job != "":
		return work(job)
	}
	var err error
	if c.only, err = regexp.Compile(only); err != nil {
		return err
	}
	if list != "" {
		c.systems = strings.Split(list, ",")
	}
	return measure(c)
}

// isRoot says that mounts are root's, with passthrough.
var isRoot = os.Geteuid() == 0

// wanted is whether a workload is to be done, for itself or because others need
// it.
func (c *config) wanted(w workload) bool {
	if c.only.MatchString(w.name) {
		return !c.quick || !w.slow
	}
	return slices.ContainsFunc(workloads, func(other workload) bool { return other.needs == w.name && c.wanted(other) })
}

// measure measures everything and prints the page; interrupted, it prints what
// it has so far.
func measure(c config) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	base, err := os.MkdirTemp("", "skep-sidebyside-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	if err := os.Chmod(base, 0o755); err != nil {
		return err
	}
	if err := c.prepare(base); err != nil {
		return err
	}
	var columns []*column
	defer func() {
		// The ordinary user's mounts hold those that were there before.
		for _, col := range slices.Backward(columns) {
			col.end()
		}
	}()
	for _, s := range systems {
		if len(c.systems) > 0 && !slices.Contains(c.systems, s.name) {
			continue
		}
		if s.ordinary && !isRoot {
			continue // the others mount as one already
		}
		if _, err := exec.LookPath(s.missing); s.missing != "" && err != nil {
			fmt.Printf("%s is not installed: there is no column for it.\n", s.missing)
			continue
		}
		col, err := newColumn(c, s, base)
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
		columns = append(columns, col)
	}
	t := newTable(columns)
	for round := range c.rounds {
		if err = oneRound(ctx, c, t, round); err != nil {
			break
		}
	}
	t.print(os.Stdout) // what there is, when it was interrupted
	return err
}

// prepare puts what all systems need onto the disk, where an ordinary user may
// read it.
func (c *config) prepare(base string) error {
	if c.tree == "" {
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return err
		}
		c.tree = filepath.Join(strings.TrimSpace(string(root)), "src")
		if c.quick {
			c.tree = filepath.Join(c.tree, "net")
		}
	}
	for _, argv := range [][]string{
		{"cp", c.skep, filepath.Join(base, "binary")},
		{"cp", "-a", c.tree, filepath.Join(base, "tree")},
		{"chmod", "-R", "a+rX", filepath.Join(base, "tree"), filepath.Join(base, "binary")},
		{"tar", "cf", filepath.Join(base, "tree.tar"), "-C", filepath.Join(base, "tree"), "."},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", argv[0], err, out)
		}
	}
	return nil
}

// largeRounds is how often whole trees are worked on at most.
const largeRounds = 3

// oneRound measures each workload on each system once.
func oneRound(ctx context.Context, c config, t *table, round int) error {
	for i, w := range workloads {
		if w.large && round >= largeRounds || !c.wanted(w) {
			continue
		}
		for j := range t.columns {
			col := t.columns[(j+round)%len(t.columns)] // nobody always comes after the same
			r, err := col.ask(ctx, task{Workload: i, Round: round})
			if err != nil {
				return fmt.Errorf("%s, %s: %w", w.name, col.system.title, err)
			}
			t.add(i, col, r)
		}
		fmt.Fprintf(os.Stderr, "round %d: %s\n", round+1, w.name)
	}
	for _, col := range t.columns {
		if _, err := col.ask(ctx, task{Workload: cleanUp, Round: round}); err != nil {
			return err
		}
	}
	return nil
}

// column is a system and the process that works on it.
type column struct {
	system system
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *json.Decoder
}

func newColumn(c config, s system, base string) (*column, error) {
	dir := filepath.Join(base, s.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	conf, err := json.Marshal(job{System: s.name, Base: dir, Skep: filepath.Join(base, "binary"), Quick: c.quick,
		Tree: filepath.Join(base, "tree"), Tar: filepath.Join(base, "tree.tar")})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", "-worker", string(conf))
	// In a group of its own it does not hear of Ctrl-C, and ends when told to.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if s.ordinary {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	col := &column{system: s, cmd: cmd, in: in, out: json.NewDecoder(out)}
	var first result
	if err := col.out.Decode(&first); err != nil || first.Err != "" {
		col.end()
		return nil, errors.Join(err, errors.New(first.Err))
	}
	return col, nil
}

// ask has a task done.
func (c *column) ask(ctx context.Context, t task) (result, error) {
	var r result
	if err := ctx.Err(); err != nil {
		return r, err
	}
	if err := json.NewEncoder(c.in).Encode(t); err != nil {
		return r, err
	}
	if err := c.out.Decode(&r); err != nil {
		return r, err
	}
	if r.Err != "" {
		return r, errors.New(r.Err)
	}
	return r, nil
}

func (c *column) end() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}
