package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/home"
	"skep/cmd/skep/say"
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

// output is where a command writes to. It remembers the first failure: what could not
// be told was not done.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("output: %w", err)
	}
	return n, err
}

// usageError marks a wrong use of the command line.
type usageError struct{ error }

// endings are the signals that end a command in order. That the terminal is gone is one,
// unless whoever started it, as nohup does, has it go on then.
func endings() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// Main runs the command line, argv[0] being the program's name, and returns the
// exit status.
func Main(argv []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	defer stop()
	skephost.Quiet()
	out := &output{Writer: os.Stdout}
	a := &app{out: out, errOut: os.Stderr}
	args, err := command(argv)
	if err == nil && args != nil {
		root := a.root()
		root.SetArgs(args)
		root.SetOut(out)
		err = root.ExecuteContext(ctx)
	}
	if err == nil {
		err = out.err
	}
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	fmt.Fprintln(a.errOut, "skep:", sentence(err))
	if isHelper(argv) {
		return helperStatus(err)
	}
	return exitStatus(err)
}

// exitStatus is that of a command that failed.
func exitStatus(err error) int {
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

// oneLine has nothing in it that a terminal takes for a command: some of the text may
// be of other peers.
func oneLine(s string) string {
	var parts []string
	for l := range strings.Lines(s) {
		if l = strings.TrimSpace(strings.Map(printable, l)); l != "" {
			parts = append(parts, l)
		}
	}
	return strings.ReplaceAll(strings.Join(parts, "; "), "?; ", "? ") // after "did you mean this?"
}

func printable(r rune) rune {
	switch {
	case unicode.IsSpace(r):
		return ' '
	case !unicode.IsPrint(r):
		return -1
	}
	return r
}

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
  skep sync                         wait until everything is safely out` + exitStatuses,
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
	root.AddCommand(termsCommand())
	root.SetHelpCommand(helpCommand())
	root.SetUsageTemplate(narrow(root.UsageTemplate()))
	namedShells(root)
	completeArguments(root)
	return root
}

// args checks the number of arguments, as a wrong use of the command line.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			if strings.HasPrefix(err.Error(), "accepts ") { // cobra counts them, and does not say what they are
				err = fmt.Errorf("%s given; use it as: %s", say.Count(len(args), "argument"), cmd.UseLine())
			}
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
	return h, errors.Join(h.Fits(), h.Accessible())
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
		return a.notRunning(err)
	}
	return err
}

// notRunning says why no daemon runs, and what starts one.
func (a *app) notRunning(err error) error {
	h, herr := a.homeDirectory()
	if herr == nil {
		herr = h.Whole()
	}
	switch {
	case errors.Is(herr, home.ErrNone):
		return noHomeError{herr}
	case herr != nil:
		return herr
	}
	if s, serr := h.Settings(); serr == nil && s.Drive == "" {
		return fmt.Errorf("%w, which is that of a storage peer, without a drive; start it with: skep peer", err)
	}
	return fmt.Errorf("%w; start it with: skep mount DIR", err)
}

// noHomeError says that there is no home, so that no daemon runs either.
type noHomeError struct{ error }

func (e noHomeError) Error() string {
	return e.error.Error() + "; make a drive with skep init, or bring one back with skep recover"
}

func (e noHomeError) Unwrap() error { return e.error }

func (noHomeError) Is(target error) bool { return target == control.ErrNotRunning }

// printJSON writes a value for scripts.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
