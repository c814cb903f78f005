package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"skep/cache/space"
	"skep/chunker/keyring"
	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/home"
	skephost "skep/net/host"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // it was tried and did not work
	exitUsage  = 2 // what was asked for makes no sense
	exitNotYet = 3 // it is not there yet
)

// app is what the commands share.
type app struct {
	homeDir        string
	passphraseFile string
	out, errOut    io.Writer
}

// usageError marks a wrong use of the command line.
type usageError struct{ error }

// Main runs the command line, argv[0] being the program's name, and returns the
// exit status.
func Main(argv []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	skephost.Quiet()
	a := &app{out: os.Stdout, errOut: os.Stderr}
	args, err := command(argv)
	if err == nil && args != nil {
		root := a.root()
		root.SetArgs(args)
		err = root.ExecuteContext(ctx)
	}
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(a.errOut, "skep:", sentence(err))
	var usage usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown ") {
		return exitUsage
	}
	if _, ok := errors.AsType[notYetError](err); ok {
		return exitNotYet
	}
	var remote *control.Error
	if errors.As(err, &remote) && remote.Code != 0 {
		return remote.Code
	}
	return exitFailed
}

// sentence is an error as people are told it: on one line.
func sentence(err error) string { return oneLine(err.Error()) }

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "skep",
		Short: "A drive that lives, sealed, on other people's computers",
		Long: `skep is a drive: a folder that you mount, whose files live, end-to-end encrypted,
on the free disk space of other people's computers, and come back when yours is gone.

Try it on this computer alone, with a small swarm of its own:

  skep demo

Use it for real:

  skep init --bootstrap ADDRESS     make a drive; write down the words it shows
  skep mount ~/drive                the drive as a folder
  skep status                       what is safe, and what is still on its way
  skep sync                         wait until everything is safely out`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       daemon.Version,
	}
	root.PersistentFlags().StringVar(&a.homeDir, "home", "", "state directory (default: $SKEP_HOME, else by the XDG rules)")
	root.PersistentFlags().StringVar(&a.passphraseFile, "passphrase-file", "", "file with the passphrase of the keys")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(a.demoCommand(), a.initCommand(), a.recoverCommand(), a.peerCommand(), a.mountCommand(), a.umountCommand(),
		a.downCommand(), a.syncCommand(), a.pinCommand(), a.statusCommand(), a.repairCommand(), a.fsckCommand(), a.doctorCommand(), a.daemonCommand())
	addReserved(root)
	return root
}

// args checks the number of arguments, as a wrong use of the command line.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; see skep %s --help", err, cmd.Name())}
		}
		return nil
	}
}

func (a *app) home() (home.Dir, error) {
	h, err := a.homeDirectory()
	if err != nil {
		return h, err
	}
	return h, h.Fits()
}

// homeDirectory is where the home is, whether or not that will do.
func (a *app) homeDirectory() (home.Dir, error) {
	if a.homeDir != "" {
		return home.Dir(a.homeDir), nil
	}
	return home.Default()
}

// client returns a client for the daemon of the home.
func (a *app) client() (*control.Client, error) {
	h, err := a.home()
	if err != nil {
		return nil, err
	}
	return control.NewClient(h.Socket()), nil
}

// call makes one request of the daemon.
func (a *app) call(ctx context.Context, path string, in, out any) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	err = c.Call(ctx, path, in, out)
	if errors.Is(err, control.ErrNotRunning) {
		return fmt.Errorf("%w; start it with: skep mount DIR", err)
	}
	return err
}

// passphrase reads the passphrase for new keys: from the file that was named,
// else none.
func (a *app) passphrase() ([]byte, error) {
	if a.passphraseFile == "" {
		return nil, nil
	}
	b, err := os.ReadFile(a.passphraseFile)
	if err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return nil, fmt.Errorf("passphrase: %s is empty", a.passphraseFile)
	}
	return b, nil
}

// unlock opens the keys of a home, asking for the passphrase on the terminal
// if there is one and it is needed.
func (a *app) unlock(h home.Dir) (keyring.Local, error) {
	pass, err := a.passphrase()
	if err != nil {
		return keyring.Local{}, err
	}
	keys, err := h.Keys(pass)
	if !errors.Is(err, keyring.ErrLocked) {
		return keys, err
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return keys, fmt.Errorf("%w: give --passphrase-file", err)
	}
	fmt.Fprint(a.errOut, "Passphrase of the keys: ")
	pass, err = term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(a.errOut)
	if err != nil {
		return keys, fmt.Errorf("passphrase: %w", err)
	}
	return h.Keys(pass)
}

// printJSON writes a value for scripts.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// sizeFlag is a number of bytes on the command line, such as 10G or 500MiB.
type sizeFlag int64

func (s *sizeFlag) String() string { return humanize.IBytes(uint64(*s)) }

// Set parses a size. A bare letter stands for the power of 1024, as in du.
func (s *sizeFlag) Set(v string) error {
	u := strings.ToUpper(strings.TrimSpace(v))
	if n := len(u); n > 0 && strings.ContainsRune("KMGTP", rune(u[n-1])) {
		u += "IB"
	}
	n, err := humanize.ParseBytes(u)
	if err != nil || n > 1<<62 {
		return fmt.Errorf("%q is not a size; write it as 10G or 500M", v)
	}
	*s = sizeFlag(n)
	return nil
}

// cacheFlag is the limit of a drive's cache on the command line.
type cacheFlag struct{ limit int64 }

func (c *cacheFlag) String() string {
	if c.limit == 0 {
		return "auto"
	}
	return humanize.IBytes(uint64(c.limit))
}

// Set parses a size, or "auto".
func (c *cacheFlag) Set(v string) error {
	if v == "auto" {
		c.limit = 0
		return nil
	}
	var s sizeFlag
	if err := s.Set(v); err != nil {
		return fmt.Errorf("%w, or auto for a share of the disk", err)
	}
	if s < space.MinLimit {
		return fmt.Errorf("a cache needs at least %s", humanize.IBytes(space.MinLimit))
	}
	c.limit = int64(s)
	return nil
}

// Type names the flag's type in help texts.
func (c *cacheFlag) Type() string { return "SIZE" }

const cacheUsage = "how much of this disk the drive may take; auto is half of what others leave"

// Type names the flag's type in help texts.
func (s *sizeFlag) Type() string { return "SIZE" }

func bytesOf(n int64) string { return humanize.IBytes(uint64(max(0, n))) }
