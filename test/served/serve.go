package served

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/fs/adapter"
	"skep/fs/mount"
)

// env tells a process, in the environment, to serve a drive.
const env = "SKEP_TEST_SERVER"

// Config says how a drive is served.
type Config struct {
	Dir, Home   string
	Options     string // as after -o
	Passthrough bool
	Stock       bool   // go-fuse's own request loop
	Trace       string // file that takes the requests; empty: none
	// State is where the tables are, and how large their parts; its Disk is
	// below the backing files, too.
	State state.Options `json:"-"`
	// Content serves what is not here.
	Content tree.Content `json:"-"`
	// Command does what the test asks for by Server.Command.
	Command func(t *tree.Tree, st *state.Store, line string) error `json:"-"`
	// More is what the test's own part of the server has to know.
	More json.RawMessage
}

// Asked reports whether this process is to serve, and what.
func Asked() (c Config, yes bool) {
	conf := os.Getenv(env)
	if conf == "" {
		return c, false
	}
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		panic(fmt.Sprintf("BUG: %s: %v", env, err))
	}
	return c, true
}

// Main serves a drive, to the end of the process.
func Main(c Config) {
	if err := serve(c); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// parts are what a drive is made of.
type parts struct {
	st   *state.Store
	tree *tree.Tree
}

func open(c Config, log *slog.Logger) (p parts, err error) {
	if p.st, err = state.OpenWith(filepath.Join(c.Home, "state"), c.State); err != nil {
		return p, err
	}
	on := c.State.Disk
	if on == nil {
		on = disk.Local
	}
	files, err := backing.OpenOn(on, filepath.Join(c.Home, "files"))
	if err != nil {
		return p, errors.Join(err, p.st.Close())
	}
	p.tree, err = tree.Open(tree.Options{State: p.st, Backing: files, Content: c.Content, Device: 1, Passthrough: c.Passthrough,
		Owner: tree.Owner{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}, Log: log})
	if err != nil {
		return p, errors.Join(err, p.st.Close())
	}
	return p, nil
}

// serve serves a drive until it is unmounted or the process is told to end.
func serve(c Config) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	opt := mount.Options{Home: c.Home, Log: log, Stock: c.Stock}
	if err := opt.Parse(c.Options); err != nil {
		return err
	}
	if c.Trace != "" {
		f, err := os.Create(c.Trace)
		if err != nil {
			return err
		}
		defer f.Close()
		opt.Trace = true
		opt.Log = slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	p, err := open(c, log)
	if err != nil {
		return err
	}
	defer p.st.Close()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- p.tree.Run(ctx) }()
	defer func() { stop(); <-ended; p.tree.Close() }()
	if c.Command != nil {
		go p.obey(c.Command, os.Stdin)
	}
	srv, err := mount.Mount(c.Dir, adapter.New(p.tree, adapter.Options{UID: opt.UID, GID: opt.GID, Log: log}), opt)
	if err != nil {
		return err
	}
	fmt.Println(ready)
	if err := srv.Run(ctx); err != nil {
		return err
	}
	return p.tree.Sync()
}

// ready is what a server says when it is.
const ready = "ready"

// obey does what is asked for, a line each, and answers each with a line: empty
// if it is done.
func (p parts) obey(do func(*tree.Tree, *state.Store, string) error, in io.Reader) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		answer := ""
		if err := do(p.tree, p.st, lines.Text()); err != nil {
			answer = fmt.Sprintf("%q", err)
		}
		fmt.Println(answer)
	}
}
