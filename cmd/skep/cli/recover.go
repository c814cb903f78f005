package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skep/chunker/words"
	"skep/cmd/skep/daemon"
)

func (a *app) recoverCommand() *cobra.Command {
	var flags peerFlags
	var wordsFile string
	var cache cacheFlag
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Bring a drive back from its recovery words",
		Long: `Makes a home for a drive that exists already, from nothing but its recovery words
and the address of any peer of its swarm. This computer becomes a new device of
the drive. Files and directories come when they are looked at.`,
		Example: `  skep recover --words-file words.txt --bootstrap /ip4/203.0.113.5/tcp/4001/p2p/12D3KooW…`,
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return usageError{fmt.Errorf("--timeout %v: it must be positive", timeout)}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return a.runRecover(ctx, cmd, flags, cache, wordsFile)
		},
	}
	flags.add(cmd)
	cmd.Flags().Var(&cache, "cache", cacheUsage)
	cmd.Flags().StringVar(&wordsFile, "words-file", "", "file with the recovery words (- for standard input)")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "give up after this long")
	return cmd
}

func (a *app) runRecover(ctx context.Context, cmd *cobra.Command, flags peerFlags, cache cacheFlag, wordsFile string) error {
	h, s, err := a.newHome(cmd, flags, cache)
	if err != nil {
		return err
	}
	switch {
	case wordsFile == "":
		return usageError{errors.New("give the recovery words with --words-file FILE (- for standard input)")}
	case len(s.Bootstrap) == 0:
		return usageError{errors.New("give the address of any peer of the swarm with --bootstrap")}
	}
	if wordsFile == "-" {
		wordsFile = "/dev/stdin"
	}
	b, err := os.ReadFile(wordsFile)
	if err != nil {
		return fmt.Errorf("recovery words: %w", err)
	}
	entropy, err := words.Parse(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("recovery words: %w", err)
	}
	pass, err := a.passphrase()
	if err != nil {
		return err
	}
	found, err := daemon.Recover(ctx, h, s, entropy, pass, func(step string) {
		if a.gauge().on {
			fmt.Fprintln(a.errOut, step+" …")
		}
	})
	if found.Clock != "" {
		fmt.Fprintln(a.errOut, "skep: "+found.Clock)
	}
	if err != nil {
		return err
	}
	a.tellOffer(s.Offer)
	a.tellRecovered(found)
	return nil
}

// tellRecovered says what was brought back, and what may be missing.
func (a *app) tellRecovered(found daemon.Recovered) {
	switch {
	case found.Empty:
		fmt.Fprintln(a.errOut, "skep: no state of the drive was found: nothing of it was ever brought out, as far as most of those say who would keep it. It begins empty.")
	case found.Few:
		fmt.Fprintln(a.errOut, "skep: too few of those answered who keep where the drive's newest state is: there may be a newer one, and what was saved last may be missing. When more peers are there, recover again, in another home (--home), to look for it.")
	}
	if found.Unknown {
		fmt.Fprintln(a.errOut, "skep: keepers could not be told of this computer yet, so that the words would not bring back what is written here. It is tried again while the drive is mounted; skep sync says when it is done.")
	}
	fmt.Fprintf(a.out, "The drive is back. Mount it:\n\n  skep%s mount DIR\n", a.sameFlags())
}
