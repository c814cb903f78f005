package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
)

// config is what is measured, and with what.
type config struct {
	skep  string // the binary
	size  int64  // of the large file
	files int    // of the drive of many files, and of the large directory
	tree  string // the directory of many files
	peers int
	only  []string // parts to be measured; none for all
	why   bool     // tell what the processor's time went to
	dir   string   // where everything happens
}

// parts are what can be measured, in order. The way back brings what the parts
// before it have stored.
var parts = []string{"pipeline", "large", "tree", "foreground", "back", "files", "directory", "image"}

// asked are the parts that take many minutes: they are measured if they are named.
var asked = []string{"files", "directory", "image"}

func (c config) measures(part string) bool {
	if len(c.only) == 0 {
		return !slices.Contains(asked, part)
	}
	return slices.Contains(c.only, part)
}

func main() {
	c, err := parse()
	if err == nil {
		err = run(c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parse reads the command line.
func parse() (c config, err error) {
	var size, only string
	flag.StringVar(&c.skep, "skep", "bin/skep", "the binary to measure")
	flag.StringVar(&size, "size", "1GiB", "size of the large file")
	flag.IntVar(&c.files, "files", 1_000_000, "files of the largest drive, entries of the largest directory")
	flag.StringVar(&c.tree, "tree", "", "directory of many files (default: Go's source)")
	flag.IntVar(&c.peers, "peers", 8, "peers of the swarm")
	flag.StringVar(&only, "only", "", "measure only these of "+strings.Join(parts, ", "))
	flag.BoolVar(&c.why, "why", false, "tell what the processor's time of daemon and peers went to, by profiles, which take some of it")
	flag.Parse()
	if only != "" {
		c.only = strings.Split(only, ",")
	}
	for _, part := range c.only {
		if !slices.Contains(parts, part) {
			return c, fmt.Errorf("there is no part %q", part)
		}
	}
	n, err := humanize.ParseBytes(size)
	if err != nil {
		return c, err
	}
	c.size = int64(n)
	if c.skep, err = filepath.Abs(c.skep); err != nil || c.tree != "" {
		return c, err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	c.tree = filepath.Join(strings.TrimSpace(string(root)), "src")
	return c, err
}

func run(c config) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if c.dir, err = os.MkdirTemp("", "skep-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	r := &report{w: tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)}
	fmt.Printf("%d cores, %s/%s, %s\n", runtime.GOMAXPROCS(0), runtime.GOOS, runtime.GOARCH, runtime.Version())
	if c.measures("pipeline") {
		if err := pipeline(c, r); err != nil {
			return fmt.Errorf("pipeline: %w", err)
		}
	}
	if !slices.ContainsFunc(append([]string{"large", "tree", "foreground"}, asked...), c.measures) {
		return nil
	}
	if err := swarm(ctx, c, r); err != nil {
		return fmt.Errorf("swarm: %w", err)
	}
	return nil
}

// report prints figures as they come.
type report struct{ w *tabwriter.Writer }

func (r *report) section(title string) { fmt.Fprintf(r.w, "\n%s\n", title) }

func (r *report) line(what, format string, args ...any) {
	fmt.Fprintf(r.w, "  %s\t%s\n", what, fmt.Sprintf(format, args...))
	_ = r.w.Flush()
}

// rate prints MB/s and the ratio to a limit, if there is one.
func (r *report) rate(what string, mbs, limit float64, of string) {
	if limit == 0 {
		r.line(what, "%.0f MB/s", mbs)
		return
	}
	r.line(what, "%.0f MB/s\t%.2f of %s", mbs, mbs/limit, of)
}
