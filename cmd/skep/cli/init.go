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
	"skep/cmd/skep/home"
)

func (a *app) initCommand() *cobra.Command {
	var flags peerFlags
	var wordsFile string
	var cache cacheFlag
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a new drive",
		Long: `Makes a new identity and a new, empty drive in the home, and shows the recovery
words: with them, and nothing else, the drive comes back when this computer is
lost. They are shown once. Write them down, on paper.`,
		Example: `  skep init --bootstrap /ip4/203.0.113.5/tcp/4001/p2p/12D3KooW…
  skep init --words-file ~/words.txt --offer 50G`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runInit(cmd, flags, cache, wordsFile)
		},
	}
	flags.add(cmd)
	cmd.Flags().Var(&cache, "cache", cacheUsage)
	cmd.Flags().StringVar(&wordsFile, "words-file", "", "write the recovery words to this new file instead of showing them")
	return cmd
}

func (a *app) runInit(cmd *cobra.Command, flags peerFlags, cache cacheFlag, wordsFile string) error {
	h, err := a.home()
	if err != nil {
		return err
	}
	flags.fit(cmd, h)
	s, err := flags.settings()
	if err != nil {
		return err
	}
	s.Cache = cache.limit
	pass, err := a.passphrase()
	if err != nil {
		return err
	}
	if h.Exists() {
		return fmt.Errorf("%w: %s; choose another one with --home", home.ErrExists, h)
	}
	var file *os.File
	if wordsFile != "" {
		// Before anything is made: words that cannot be kept are of no use.
		if file, err = os.OpenFile(wordsFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return fmt.Errorf("file for the words: %w", err)
		}
		defer file.Close()
	}
	entropy, err := daemon.Init(h, s, pass)
	if err != nil {
		if file != nil {
			_ = os.Remove(wordsFile)
		}
		return err
	}
	if file != nil {
		if _, err := fmt.Fprintln(file, entropy.Phrase()); err != nil {
			return fmt.Errorf("file for the words: %w", err)
		}
		fmt.Fprintf(a.out, "The drive is made. Its recovery words are in %s: keep them safe, and off this computer.\n", wordsFile)
	} else {
		a.showWords(entropy)
	}
	fmt.Fprintf(a.out, "Now mount it:\n\n  skep%s mount DIR\n", a.homeFlag())
	if file == nil {
		return nil
	}
	return file.Sync()
}

func (a *app) showWords(e words.Entropy) {
	fmt.Fprint(a.out, "The drive is made. These are its recovery words. Write them down, in this order:\n\n")
	for i, w := range e.Words() {
		fmt.Fprintf(a.out, "  %2d  %s\n", i+1, w)
	}
	fmt.Fprint(a.out, "\nWhoever has them has the drive. Without them it is gone when this computer is.\nThey are not shown again.\n\n")
}

// homeFlag is what later commands need to find the same home.
func (a *app) homeFlag() string {
	if a.homeDir == "" {
		return ""
	}
	return " --home " + a.homeDir
}

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
	h, err := a.home()
	if err != nil {
		return err
	}
	flags.fit(cmd, h)
	s, err := flags.settings()
	if err != nil {
		return err
	}
	s.Cache = cache.limit
	switch {
	case wordsFile == "":
		return usageError{errors.New("give the recovery words with --words-file FILE (- for standard input)")}
	case len(s.Bootstrap) == 0:
		return usageError{errors.New("give the address of any peer of the swarm with --bootstrap")}
	}
	if h.Exists() {
		return fmt.Errorf("%w: %s; choose another one with --home", home.ErrExists, h)
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
	err = daemon.Recover(ctx, h, s, entropy, pass, func(step string) {
		if a.gauge().on {
			fmt.Fprintln(a.errOut, step+" …")
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "The drive is back. Mount it:\n\n  skep%s mount DIR\n", a.homeFlag())
	return nil
}
